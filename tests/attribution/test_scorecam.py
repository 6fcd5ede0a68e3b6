"""Score-CAM against the official code, against masks made one by one, and the laws of its loop."""

from collections.abc import Sequence
import dataclasses

import compiled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import slow_after

import castream_jax as castream
from castream_jax.attribution import min_max
from castream_jax.attribution.attribute import attribute_batch
from castream_jax.layers import Conv, linear
from castream_jax.runtime.mesh import data_mesh, replicate, split_over_images

METHOD = ("scorecam",)


def variant(**fields) -> castream.Protocol:
    return dataclasses.replace(castream.get_protocol("castream"), **fields)


def random_images(batch: int, size: int = 16, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    pixels = jnp.asarray(rng.random((batch, size, size, 3)), jnp.float32)
    return pixels, jnp.asarray(rng.integers(0, 10, batch), jnp.int32)


class Patches(castream.Backbone):
    """One layer: channels of 4 x 4 patches, the last of them constant. Counts the batches it sees, if asked to."""

    def __init__(self, channels: int, constant: int = 0, *, counter: list[int] | None = None):
        super().__init__("patches", num_classes=10, boundary_dims=[channels], stride=4)
        self.conv = Conv(3, channels, 4, stride=4, padding=0, use_bias=True, rngs=nnx.Rngs(0))
        self.alive = tuple(np.arange(channels) < channels - constant)
        self.linear = linear(channels, 10, nnx.Rngs(1))
        self.counter = None if counter is None else counter.append

    def _parts(self) -> Sequence:
        return [self._patches]

    def _patches(self, x: jax.Array) -> jax.Array:
        if self.counter is not None:
            jax.debug.callback(self.counter, x.shape[0])
        return jnp.where(jnp.asarray(self.alive)[None, None, None], self.conv(x), 0.5)

    def classify(self, representation: jax.Array) -> jax.Array:
        return self.linear(representation)


@pytest.mark.slow
def test_equals_the_official_code(golden, golden_model):
    # Observed: 6.0e-6. The bar is that of the other maps.
    pixels = golden["images"].astype(np.float32) / 255
    maps = castream.attribute(golden_model, pixels, golden["labels"], METHOD)
    for head in ("gap", "ca"):
        np.testing.assert_allclose(maps[head, "scorecam"], golden[f"{head}/scorecam/map"], rtol=0, atol=1e-4)


def enlarged(channel: np.ndarray, size: int, *, aligned: bool) -> np.ndarray:
    """Bilinear enlargement, row by row and column by column."""
    small = len(channel)
    at = np.linspace(0, small - 1, size) if aligned else (np.arange(size) + 0.5) * small / size - 0.5
    wide = np.stack([np.interp(at, np.arange(small), row) for row in channel])
    return np.stack([np.interp(at, np.arange(small), column) for column in wide.T]).T


def scaled(x: np.ndarray) -> np.ndarray:
    return (x - x.min()) / np.ptp(x) if np.ptp(x) > 0 else np.zeros_like(x)


def check_against_masks_made_one_by_one(model: castream.Model, protocol: castream.Protocol) -> None:
    pixels, labels = random_images(2)
    backbone, size = model.backbone, pixels.shape[1]
    features = np.asarray(
        compiled.stages(backbone, pixels)[-1 if protocol.target_stage is None else protocol.target_stage]
    )
    maps = castream.attribute(model, pixels, labels, METHOD, protocol, chunk=7)
    predicted = {head: logits.argmax(-1) for head, logits in compiled.logits(model, pixels).items()}
    aligned = protocol.scorecam_mask == "resize_then_min_max"
    predict = jax.jit(model)
    for image in range(len(pixels)):
        channels = np.moveaxis(features[image], -1, 0).astype(np.float64)
        masks = [
            scaled(enlarged(one, size, aligned=True)) if aligned else enlarged(scaled(one), size, aligned=False)
            for one in channels
        ]
        masks = jnp.asarray(np.stack(masks), jnp.float32)[..., None]
        if protocol.masked_space == "pixels":
            shown = pixels[image][None] * masks
        else:
            shown = backbone.denormalise(backbone.normalise(pixels[image][None]) * masks)
        for head, logits in predict(shown).items():
            label = labels[image] if protocol.target_class == "label" else predicted[head][image]
            by_class = protocol.scorecam_weight == "class_probability"
            weights = np.array(jax.nn.softmax(logits)[:, label] if by_class else jax.nn.softmax(logits[:, label]))
            if protocol.scorecam_channels:
                falling = np.argsort([-np.ptp(one) for one in channels])
                weights[falling[protocol.scorecam_channels :]] = 0
            expected = scaled(np.maximum(0, np.tensordot(weights, channels, 1)))
            np.testing.assert_allclose(maps[head, "scorecam"][image], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "fields",
    slow_after(
        1,
        [
            {},
            {
                "scorecam_weight": "channel_softmax",
                "scorecam_mask": "min_max_then_resize",
                "masked_space": "normalised",
            },
            {"target_stage": 0, "target_class": "predicted", "scorecam_weight": "channel_softmax"},
            {"target_stage": 1, "masked_space": "normalised", "scorecam_channels": 5},
        ],
    ),
    ids=lambda fields: ",".join(map(str, fields.values())) or "castream",
)
def test_equals_masks_made_one_by_one(small_model, fields):
    """Also where most channels are left out, and where some are constant, as in the first stage."""
    check_against_masks_made_one_by_one(small_model, variant(**fields))


@pytest.mark.parametrize("weight", ["class_probability", "channel_softmax"])
def test_constant_channels_weigh_what_the_black_image_is_worth(weight):
    model = castream.Model(Patches(8, constant=3), {"gap": castream.GlobalAveragePooling()})
    check_against_masks_made_one_by_one(model, variant(scorecam_weight=weight))


@pytest.mark.slow
def test_images_of_a_batch_do_not_see_each_other_nor_the_chunk(small_model):
    pixels, labels = random_images(3)
    reference = castream.attribute(small_model, pixels, labels, METHOD, chunk=64)
    for chunk in (1, 10):
        for key, maps in castream.attribute(small_model, pixels, labels, METHOD, chunk=chunk).items():
            np.testing.assert_allclose(maps, reference[key], rtol=0, atol=1e-5)
    alone = castream.attribute(small_model, pixels[1:2], labels[1:2], METHOD, chunk=64)
    other = castream.attribute(small_model, pixels[1:2], (labels[1:2] + 1) % 10, METHOD, chunk=64)
    for key, maps in alone.items():
        np.testing.assert_allclose(maps[0], reference[key][1], rtol=0, atol=1e-5)
        assert not np.allclose(other[key], maps, atol=1e-3)


@pytest.mark.slow
def test_a_class_specific_stream_reads_the_prediction_on_the_masked_image():
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    stream = castream.CrossAttentionStream(backbone.stage_dims, num_queries=10, rngs=nnx.Rngs(1))
    model = castream.Model(backbone, {"ca": stream})
    pixels, labels = random_images(1)
    maps = castream.attribute(model, pixels, labels, METHOD, chunk=64)["ca", "scorecam"]
    channels = np.moveaxis(np.asarray(compiled.stages(backbone, pixels)[-1][0]), -1, 0)
    masks = jnp.asarray(np.stack([scaled(enlarged(one, 16, aligned=True)) for one in channels]), jnp.float32)
    stages = compiled.stages(backbone, pixels * masks[..., None])
    own_query = backbone.classify(stages[-1].mean((1, 2))).argmax(-1)
    weights = jax.nn.softmax(backbone.classify(stream(stages, own_query)[0]))[:, labels[0]]
    expected = scaled(np.maximum(0, np.tensordot(np.asarray(weights), channels, 1)))
    np.testing.assert_allclose(maps[0], expected, rtol=0, atol=1e-4)


def test_constant_channels_are_scored_once_per_image():
    counter: list[int] = []
    model = castream.Model(Patches(8, constant=3, counter=counter), {"gap": castream.GlobalAveragePooling()})
    pixels, labels = random_images(2)
    jax.block_until_ready(castream.attribute(model, pixels, labels, METHOD, chunk=1))
    jax.effects_barrier()
    assert counter == [2] + [1] * (2 * (5 + 1))  # the batch itself; then five channels and one black image each


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_channels():
    def temporary_bytes(channels: int) -> int:
        model = castream.Model(Patches(channels), {"gap": castream.GlobalAveragePooling()})
        pixels, labels = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)
        lowered = attribute_batch.lower(model, pixels, labels, methods=METHOD, protocol=variant(), chunk=4)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    few, many = temporary_bytes(64), temporary_bytes(512)
    # What grows are the features, 16 x 16 values a channel, which the trunk makes for 2 + 4 images, and some scores;
    # were all masks made at once they would take 64 x 64 values for each channel and image.
    features, all_masks = (6 * 512 * 16 * 16 * 4, 2 * 512 * 64 * 64 * 4)
    assert many - few < 2 * features
    assert many < all_masks / 2


@pytest.mark.slow
def test_several_devices_give_the_same_maps_without_any_communication(small_model):
    # 1e-6: each device convolves chunks of other sizes, which may change the order of some sums.
    methods, protocol = ("scorecam", "rise"), variant(rise_masks=20)
    pixels, labels = random_images(8)
    one = castream.attribute(small_model, pixels, labels, methods, protocol, chunk=16)
    mesh = data_mesh(jax.devices()[:4])
    split = split_over_images(mesh)
    graphdef, state = nnx.split(small_model)
    model = nnx.merge(graphdef, replicate(state, mesh))
    arrays = jax.device_put(pixels, split), jax.device_put(labels, split)
    options = {"methods": methods, "protocol": protocol, "chunk": 16}
    several = attribute_batch(model, *arrays, **options)
    for key, maps in several.items():
        assert len(maps.sharding.device_set) == 4
        np.testing.assert_allclose(maps, one[key], rtol=0, atol=1e-6, err_msg=str(key))
    hlo = attribute_batch.lower(model, *arrays, **options).compile().as_text()
    assert "convolution" in hlo
    for communication in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert communication not in hlo


@pytest.mark.slow
def test_more_channels_come_nearer_to_the_map_of_all(small_model):
    pixels, labels = random_images(3)

    def maps(channels: int) -> np.ndarray:
        found = castream.attribute(small_model, pixels, labels, METHOD, variant(scorecam_channels=channels), chunk=64)
        return np.stack([np.asarray(found[head, "scorecam"]) for head in small_model.heads])

    exact, errors = maps(0), {k: np.abs(maps(k) - maps(0)).max((2, 3)).mean() for k in (4, 16, 64)}
    assert errors[4] > errors[16] > 0
    np.testing.assert_array_equal(maps(64), exact)


def test_a_map_of_constant_channels_alone_is_zero():
    model = castream.Model(Patches(4, constant=4), {"gap": castream.GlobalAveragePooling()})
    maps = castream.attribute(model, *random_images(2), METHOD)
    np.testing.assert_array_equal(maps["gap", "scorecam"], min_max(jnp.ones((2, 4, 4))))
