"""Layers: their parameters' names, types and initial values, and the type that they compute in."""

from collections.abc import Callable

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from castream_jax.layers import Conv, batch_norm, layer_norm, linear

LAYERS: dict[str, tuple[Callable[[nnx.Rngs], nnx.Module], set[str]]] = {
    "convolution": (lambda rngs: Conv(4, 6, 3, rngs=rngs), {"kernel"}),
    "convolution with bias": (lambda rngs: Conv(4, 6, 3, use_bias=True, rngs=rngs), {"kernel", "bias"}),
    "depthwise": (lambda rngs: Conv(4, 4, 3, groups=4, rngs=rngs), {"kernel"}),
    "linear": (lambda rngs: linear(4, 6, rngs), {"kernel", "bias"}),
    "linear without bias": (lambda rngs: linear(4, 6, rngs, use_bias=False), {"kernel"}),
    "batch norm": (lambda rngs: batch_norm(4, rngs), {"scale", "bias", "mean", "var"}),
    "layer norm": (lambda rngs: layer_norm(4, rngs), {"scale", "bias"}),
}


@pytest.mark.parametrize(("build", "names"), LAYERS.values(), ids=list(LAYERS))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_float32_parameters_and_the_type_of_the_input(build, names: set[str], dtype: str):
    layer = build(nnx.Rngs(0))
    parameters = nnx.to_pure_dict(nnx.state(layer))
    assert set(parameters) == names
    assert {value.dtype for value in parameters.values()} == {jnp.dtype("float32")}
    assert jax.jit(layer)(jnp.ones((2, 5, 5, 4), dtype)).dtype == dtype


def test_a_linear_layer_of_rows_and_of_images():
    layer = linear(4, 6, nnx.Rngs(0), bias_init=nnx.initializers.normal())
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4)), jnp.float32)
    expected = np.asarray(x, np.float64) @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])
    np.testing.assert_allclose(layer(x), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(layer(x[:, None, None])[:, 0, 0], expected, rtol=0, atol=1e-6)


def test_layer_norm_is_computed_in_float32():
    x = jnp.asarray([[255.0, 256.0, 257.0, 258.0]], jnp.bfloat16)  # of 8 bits: their differences, 1 and 2, are not
    x32 = x.astype(jnp.float32)
    expected = (x32 - x32.mean()) / x32.std()
    np.testing.assert_allclose(layer_norm(4, nnx.Rngs(0))(x).astype(jnp.float32), expected, atol=0.01)


@pytest.mark.parametrize("use_bias", [True, False])
def test_a_convolutions_bias_draws_no_number(use_bias: bool):
    """Initial values of what comes after it, for a given seed, are those without."""
    rngs = nnx.Rngs(0)
    Conv(4, 6, 3, use_bias=use_bias, rngs=rngs)
    reference = nnx.Rngs(0)
    reference.params()
    assert jax.random.key_data(rngs.params()).tolist() == jax.random.key_data(reference.params()).tolist()
