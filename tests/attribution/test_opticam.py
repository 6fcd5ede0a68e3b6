"""Opti-CAM: Adam's first step in closed form, the objective it raises, and independence of images and heads."""

import dataclasses
import functools

import compiled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import castream_jax as castream

METHOD = ("opticam",)


def protocol(steps: int, **fields) -> castream.Protocol:
    return dataclasses.replace(castream.get_protocol("castream"), opticam_steps=steps, **fields)


def random_images(batch: int) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.random((batch, 16, 16, 3)), jnp.float32), jnp.asarray(rng.integers(0, 10, batch), jnp.int32)


def mask_of(weights: jax.Array, features: jax.Array) -> jax.Array:
    """The saliency map of one image by its channel weights, scaled after it is enlarged."""
    combined = jnp.tensordot(features, weights, 1)
    large = jax.image.resize(combined, (16, 16), "bilinear", antialias=False)
    return (large - large.min()) / (large.max() - large.min())


@functools.partial(jax.jit, static_argnames=("graphdef", "head", "space"))
def logit_of(graphdef, state, head: str, pixels, mask, label, space: str = "pixels") -> jax.Array:
    model = nnx.merge(graphdef, state)
    if space == "pixels":
        shown = (pixels * mask[..., None])[None]
    else:
        shown = model.backbone.denormalise(model.backbone.normalise(pixels[None]) * mask[None, ..., None])
    return model(shown)[head][0, label]


@pytest.mark.slow
def test_adams_first_step_follows_the_sign_of_the_gradient(small_model):
    """From zero, one step leads to `rate g / (|g| + 1e-8)`, here with the gradient of a plainly written objective.

    1e-3: small components of the gradient are rounding, and the step takes their sign as it takes any other's.
    """
    split = nnx.split(small_model)
    pixels, labels = random_images(2)
    features = jax.nn.relu(compiled.stages(small_model.backbone, pixels)[-1])
    one = castream.attribute(small_model, pixels, labels, METHOD, protocol(1, opticam_learning_rate=0.3), chunk=32)

    def objective(u, head, i):
        return logit_of(*split, head, pixels[i], mask_of(jax.nn.softmax(u), features[i]), labels[i])

    for head in small_model.heads:
        for i in range(2):
            gradient = jax.grad(objective)(jnp.zeros(64), head, i)
            u = 0.3 * gradient / (jnp.abs(gradient) + 1e-8)
            expected = mask_of(jax.nn.softmax(u), features[i])
            np.testing.assert_allclose(one[head, "opticam"][i], expected, rtol=0, atol=1e-3)
            assert np.abs(one[head, "opticam"][i] - mask_of(jnp.full(64, 1 / 64), features[i])).max() > 0.02


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, {"masked_space": "normalised", "target_stage": 2}], ids=["castream", "other"])
def test_the_class_gains_under_every_head(small_model, fields):
    split = nnx.split(small_model)
    pixels, labels = random_images(3)
    choices = protocol(30, **fields)
    features = compiled.stages(small_model.backbone, pixels)[
        -1 if choices.target_stage is None else choices.target_stage
    ]
    maps = castream.attribute(small_model, pixels, labels, METHOD, choices, chunk=32)
    equal = jnp.full(features.shape[-1], 1 / features.shape[-1])
    for head in small_model.heads:
        for i in range(3):
            before, after = (
                logit_of(*split, head, pixels[i], mask, labels[i], choices.masked_space)
                for mask in (mask_of(equal, features[i]), maps[head, "opticam"][i])
            )
            assert after > before + 0.01


@pytest.mark.slow
def test_images_and_heads_do_not_see_each_other(small_model):
    # 1e-3: ten steps of an optimiser that takes the sign of rounding too.
    pixels, labels = random_images(3)
    together = castream.attribute(small_model, pixels, labels, METHOD, protocol(10), chunk=64)
    gap_only = castream.Model(small_model.backbone, {"gap": small_model.heads["gap"]})
    alone = castream.attribute(gap_only, pixels[1:], labels[1:], METHOD, protocol(10), chunk=4)
    assert alone["gap", "opticam"].shape == (2, 16, 16)
    np.testing.assert_allclose(alone["gap", "opticam"], together["gap", "opticam"][1:], rtol=0, atol=1e-3)
