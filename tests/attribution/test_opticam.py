"""Opti-CAM: Adam's first step in closed form, the objective it raises, and independence of images and heads."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

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


def logit_of(model: castream.Model, head: str, pixels: jax.Array, mask: jax.Array, label: jax.Array) -> jax.Array:
    return model((pixels * mask[..., None])[None])[head][0, label]


def test_adams_first_step_follows_the_sign_of_the_gradient(small_model):
    """From zero, one step leads to `rate g / (|g| + 1e-8)`, here with the gradient of a plainly written objective.

    1e-3: small components of the gradient are rounding, and the step takes their sign as it takes any other's.
    """
    pixels, labels = random_images(2)
    features = jax.nn.relu(small_model.backbone.stages(pixels)[-1])
    none = castream.attribute(small_model, pixels, labels, METHOD, protocol(0))
    one = castream.attribute(small_model, pixels, labels, METHOD, protocol(1, opticam_learning_rate=0.3))
    for head in small_model.heads:
        for i in range(2):
            np.testing.assert_allclose(none[head, "opticam"][i], mask_of(jnp.full(64, 1 / 64), features[i]), atol=1e-5)

            def objective(u, head=head, i=i):
                mask = mask_of(jax.nn.softmax(u), features[i])
                return logit_of(small_model, head, pixels[i], mask, labels[i])

            gradient = jax.jit(jax.grad(objective))(jnp.zeros(64))
            u = 0.3 * gradient / (jnp.abs(gradient) + 1e-8)
            expected = mask_of(jax.nn.softmax(u), features[i])
            np.testing.assert_allclose(one[head, "opticam"][i], expected, rtol=0, atol=1e-3)
            assert np.abs(one[head, "opticam"][i] - none[head, "opticam"][i]).max() > 0.02


def test_the_class_gains_under_every_head(small_model):
    pixels, labels = random_images(4)
    before = castream.attribute(small_model, pixels, labels, METHOD, protocol(0))
    after = castream.attribute(small_model, pixels, labels, METHOD, protocol(30))
    for head in small_model.heads:
        for i in range(4):
            low, high = (
                logit_of(small_model, head, pixels[i], maps[head, "opticam"][i], labels[i]) for maps in (before, after)
            )
            assert high > low + 0.01


def test_images_and_heads_do_not_see_each_other(small_model):
    # 1e-3: ten steps of an optimiser that takes the sign of rounding too.
    pixels, labels = random_images(3)
    together = castream.attribute(small_model, pixels, labels, METHOD, protocol(10), chunk=64)
    alone = castream.attribute(small_model, pixels[1:2], labels[1:2], METHOD, protocol(10), chunk=4)
    gap_only = castream.Model(small_model.backbone, {"gap": small_model.heads["gap"]})
    without_ca = castream.attribute(gap_only, pixels, labels, METHOD, protocol(10), chunk=8)
    for (head, _), maps in alone.items():
        assert maps.shape == (1, 16, 16)
        np.testing.assert_allclose(maps[0], together[head, "opticam"][1], rtol=0, atol=1e-3)
    np.testing.assert_allclose(without_ca["gap", "opticam"], together["gap", "opticam"], rtol=0, atol=1e-3)


def test_masking_space_and_stage_follow_the_protocol(small_model):
    pixels, labels = random_images(1)
    reference = castream.attribute(small_model, pixels, labels, METHOD, protocol(5))
    for fields in ({"masked_space": "normalised"}, {"target_stage": 2}):
        other = castream.attribute(small_model, pixels, labels, METHOD, protocol(5, **fields))
        for key, maps in reference.items():
            assert other[key].shape == maps.shape
            assert np.all(np.isfinite(other[key]))
            assert not np.allclose(other[key], maps, atol=1e-3)
