"""Saliency maps against the official code and against derivatives taken another way."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.attribution import min_max, upsample


def test_gradcam_equals_the_official_code(golden, golden_model):
    maps = castream.attribute(golden_model, golden["images"].astype(np.float32) / 255, golden["labels"])
    for head in ("gap", "ca"):
        np.testing.assert_allclose(maps[head, "gradcam"], golden[f"{head}/gradcam/map"], rtol=0, atol=1e-4)


def test_attention_map_is_the_last_stages_softmax(golden, golden_model):
    pixels = golden["images"][:20].astype(np.float32) / 255
    maps = castream.attribute(golden_model, pixels, golden["labels"][:20], methods=("attention",))
    assert set(maps) == {("ca", "attention")}
    softmax = jax.nn.softmax(golden["attention_logits_3"][:20].reshape(20, -1)).reshape(20, 8, 8)
    np.testing.assert_allclose(maps["ca", "attention"], min_max(softmax), rtol=0, atol=1e-5)


def test_head_only_derivative_equals_autodiff_through_the_trunk(small_model):
    """The derivative with respect to an offset added to the last stage inside the whole model."""
    pixels = jnp.asarray(np.random.default_rng(0).random((4, 16, 16, 3)), jnp.float32)
    labels = jnp.array([3, 1, 4, 1])
    backbone, stages = small_model.backbone, small_model.backbone.stages(pixels)

    def logit(offset, head):
        *earlier, last = backbone.stages(pixels)
        logits = backbone.classify(small_model.heads[head]((*earlier, last + offset))[0])
        return logits[jnp.arange(4), labels].sum()

    maps = castream.attribute(small_model, pixels, labels)
    for head in small_model.heads:
        gradient = jax.grad(logit)(jnp.zeros_like(stages[-1]), head)
        expected = jax.nn.relu((stages[-1] * gradient.mean((1, 2), keepdims=True)).sum(-1))
        np.testing.assert_allclose(maps[head, "gradcam"], min_max(expected), rtol=0, atol=1e-5)


def test_each_image_is_explained_for_its_own_class(small_model):
    pixels = jnp.asarray(np.random.default_rng(1).random((2, 16, 16, 3)), jnp.float32)
    both = castream.attribute(small_model, pixels, jnp.array([0, 7]))
    alone = castream.attribute(small_model, pixels[1:], jnp.array([7]))
    other = castream.attribute(small_model, pixels[1:], jnp.array([8]))
    for key, saliency in alone.items():
        np.testing.assert_allclose(both[key][1], saliency[0], rtol=0, atol=1e-5)
        assert not np.allclose(other[key], saliency, atol=1e-2)


def test_predicted_class_protocol_ignores_labels(small_model):
    pixels = jnp.asarray(np.random.default_rng(1).random((3, 16, 16, 3)), jnp.float32)
    predicted = castream.attribute(small_model, pixels, jnp.zeros(3, jnp.int32), protocol="castream-pred")
    for head, logits in small_model(pixels).items():
        by_label = castream.attribute(small_model, pixels, logits.argmax(-1))
        np.testing.assert_array_equal(predicted[head, "gradcam"], by_label[head, "gradcam"])


def test_constant_scores_become_zeros_not_nan():
    maps = min_max(jnp.stack([jnp.full((3, 3), 0.7), jnp.zeros((3, 3)), jnp.eye(3) * 5 + 2]))
    np.testing.assert_array_equal(maps, np.stack([np.zeros((3, 3)), np.zeros((3, 3)), np.eye(3)]))


def test_upsampling_has_half_pixel_centres():
    row = np.array([0.0, 1.0, 0.5], np.float32)
    wide = upsample(jnp.asarray(np.tile(row, (3, 1)))[None], 12, 12)[0, 0]
    centres = (np.arange(12) + 0.5) / 4 - 0.5
    np.testing.assert_allclose(wide, np.interp(centres, np.arange(3), row), atol=1e-6)


def test_upsampling_equals_pytorchs():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    maps = np.random.default_rng(0).random((2, 7, 5), np.float32)
    expected = torch.nn.functional.interpolate(
        torch.tensor(maps)[None], (224, 161), mode="bilinear", align_corners=False
    )[0].numpy()
    np.testing.assert_allclose(upsample(jnp.asarray(maps), 224, 161), expected, atol=2e-6)


def test_arguments_that_do_not_fit_are_refused(small_model):
    pixels = jnp.zeros((2, 16, 16, 3))
    labels = jnp.array([0, 1])
    with pytest.raises(ValueError, match="no attribution method 'gradcamm': did you mean 'gradcam'"):
        castream.attribute(small_model, pixels, labels, methods=("gradcamm",))
    with pytest.raises(ValueError, match="one class per image"):
        castream.attribute(small_model, pixels, labels[:1])
    with pytest.raises(ValueError, match="labels must lie in 0 … 9, got 0 … 10"):
        castream.attribute(small_model, pixels, jnp.array([0, 10]))
    with pytest.raises(ValueError, match="Unknown protocol 'castrem': one of castream"):
        castream.attribute(small_model, pixels, labels, protocol="castrem")
    gap_only = castream.Model(small_model.backbone, {"gap": castream.GlobalAveragePooling()})
    with pytest.raises(ValueError, match="Raw attention needs a model with a CrossAttentionStream"):
        castream.attribute(gap_only, pixels, labels, methods=("attention",))


def test_maps_lie_between_zero_and_one_for_several_attention_heads():
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    stream = castream.CrossAttentionStream(backbone.stage_dims, num_heads=4, rngs=nnx.Rngs(1))
    model = castream.Model(backbone, {"ca": stream})
    pixels = jnp.asarray(np.random.default_rng(0).random((3, 20, 24, 3)), jnp.float32)
    maps = castream.attribute(model, pixels, jnp.array([0, 1, 2]), methods=("attention", "gradcam"))
    for saliency in maps.values():
        assert saliency.shape == (3, 5, 6)
        assert float(saliency.min()) >= 0
        assert float(saliency.max()) <= 1
