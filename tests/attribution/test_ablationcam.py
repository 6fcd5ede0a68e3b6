"""Ablation-CAM against its closed form under GAP, and against channels really set to zero."""

# pyright: reportAttributeAccessIssue=false

import dataclasses

import compiled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.attribution import Inputs, min_max
from castream_jax.attribution.ablationcam import ablation_weights

METHOD = ("ablationcam",)


def random_images(batch: int) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.random((batch, 16, 16, 3)), jnp.float32), jnp.asarray(rng.integers(0, 10, batch), jnp.int32)


def expected_map(features: jax.Array, weights: jax.Array) -> jax.Array:
    return min_max(jax.nn.relu((features * weights[:, None, None]).sum(-1)))


@pytest.mark.slow
def test_under_gap_a_weight_is_the_channels_share_of_the_logit(small_model):
    """`y - y_k` is the class's classifier weight times the channel's mean."""
    pixels, labels = random_images(4)
    backbone = small_model.backbone
    last = compiled.stages(backbone, pixels)[-1]
    logit = compiled.logits(small_model, pixels)["gap"][jnp.arange(4), labels]
    weights = backbone.linear.kernel[...].T[labels] * last.mean((1, 2)) / logit[:, None]
    maps = castream.attribute(small_model, pixels, labels, METHOD, chunk=32)
    np.testing.assert_allclose(maps["gap", "ablationcam"], expected_map(last, weights), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "chunk", "target"), [(None, 1, "label"), (None, 32, "predicted"), (1, 8, "label")])
def test_equals_channels_set_to_zero_one_by_one(small_model, stage: int | None, chunk: int, target: str):
    """From an earlier stage on, the rest of the trunk sees the ablation too."""
    pixels, labels = random_images(3)
    backbone, number = small_model.backbone, 3 if stage is None else stage
    stages = compiled.stages(backbone, pixels)
    features, query = stages[number], small_model.predicted_class(stages)
    predicted = {head: logits.argmax(-1) for head, logits in compiled.logits(small_model, pixels).items()}
    classes = dict.fromkeys(small_model.heads, labels) if target == "label" else predicted
    protocol = dataclasses.replace(castream.get_protocol("castream"), target_stage=stage, target_class=target)
    maps = castream.attribute(small_model, pixels, labels, METHOD, protocol, chunk=chunk)

    @jax.jit
    def logits_without(kept: jax.Array) -> dict[str, jax.Array]:
        offset = jnp.where(kept[None, None, None], 0, -features)
        logits = small_model.logits(backbone.stages(pixels, {number: offset}), query)
        return {head: of_head[jnp.arange(3), classes[head]] for head, of_head in logits.items()}

    channels = np.arange(features.shape[-1])
    ablated = [logits_without(jnp.asarray(channels != channel)) for channel in channels]
    for head, logit in logits_without(jnp.ones(len(channels), bool)).items():
        weights = jnp.stack([(logit - without[head]) / logit for without in ablated], axis=1)
        expected = expected_map(features, weights)
        np.testing.assert_allclose(maps[head, "ablationcam"], expected, rtol=0, atol=1e-4)


def test_a_logit_of_zero_gives_weights_of_zero_not_nan():
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    backbone.linear.kernel.set_value(backbone.linear.kernel[...].at[:, 0].set(0))
    backbone.linear.bias.set_value(jnp.zeros(10))
    model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling()})
    pixels, _ = random_images(2)
    inputs = Inputs(model, pixels, jnp.zeros(2, jnp.int32), castream.get_protocol("castream"), 32)
    np.testing.assert_array_equal(ablation_weights(inputs, "gap"), 0)
