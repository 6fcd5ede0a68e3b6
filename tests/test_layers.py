"""What is written otherwise for a CPU equals the plain form: convolutions, products; GELU equals its definition."""

from collections.abc import Callable
from functools import partial
import math

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from castream_jax.layers import Conv, computed_once, gelu, product, times_transposed


def grouped(conv: Conv, x: jax.Array, kernel: jax.Array | None = None) -> jax.Array:
    """XLA's own convolution, grouped or not."""
    padding = ((conv.padding, conv.padding),) * 2
    return lax.conv_general_dilated(
        x,
        conv.kernel[...] if kernel is None else kernel,
        (conv.stride, conv.stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=conv.groups,
        precision=lax.Precision.HIGHEST,
    )


@pytest.mark.parametrize(("height", "width"), [(9, 8), (7, 12)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
@pytest.mark.parametrize(("features", "out_features", "groups"), [(6, 6, 6), (8, 12, 4), (4, 8, 4)])
def test_grouped_and_depthwise(features, out_features, groups, kernel_size, stride, height, width):
    conv = Conv(features, out_features, kernel_size, stride=stride, groups=groups, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, height, width, features)), jnp.float32)
    np.testing.assert_allclose(conv(x), grouped(conv, x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("groups", [6, 2])
def test_derivatives(groups: int):
    conv = Conv(6, 6, 3, stride=2, groups=groups, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 9, 8, 6)), jnp.float32)
    found = jax.grad(lambda x: (conv(x) ** 2).sum())(x)
    np.testing.assert_allclose(found, jax.grad(lambda x: (grouped(conv, x) ** 2).sum())(x), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("height", "width", "kernel_size", "stride", "padding"),
    [(9, 8, 3, 1, 1), (9, 8, 3, 2, 1), (31, 28, 7, 2, 3), (8, 8, 2, 2, 0), (33, 35, 4, 4, 0), (16, 17, 5, 1, 0)],
)
def test_derivatives_are_those_of_xla_and_quick_in_a_loop(height, width, kernel_size, stride, padding):
    conv = Conv(3, 4, kernel_size, stride=stride, padding=padding, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, height, width, 3)), jnp.float32)

    def derivatives(function: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[..., tuple[jax.Array, ...]]:
        return jax.grad(lambda x, kernel: (function(x, kernel) ** 2).sum(), argnums=(0, 1))

    found = derivatives(conv.convolve)(x, conv.kernel[...])
    for result, expected in zip(found, derivatives(partial(grouped, conv))(x, conv.kernel[...]), strict=True):
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4)
    looped = jax.jit(lambda x, kernel: lax.map(lambda x: derivatives(conv.convolve)(x, kernel), x[None]))
    hlo = looped.lower(x, conv.kernel[...]).compile().as_text()
    layouts = {line.split("dim_labels=")[1].split(",")[0] for line in hlo.splitlines() if " convolution(" in line}
    assert layouts == {"b01f_01io->b01f"}, "the only one that XLA's CPU backend has a library for"


@pytest.mark.parametrize("groups", [6, 2])
def test_each_platform_is_lowered_to_its_own_form(groups: int):
    conv = Conv(6, 6, 3, groups=groups, rngs=nnx.Rngs(0))
    traced = jax.jit(conv).trace(jnp.zeros((1, 8, 8, 6)))
    form = f"feature_group_count = {groups} "
    assert form in traced.lower(lowering_platforms=("cuda",)).as_text()
    assert form not in traced.lower(lowering_platforms=("cpu",)).as_text()


def test_what_several_operations_read_is_computed_once():
    def read_twice(x: jax.Array, keep: Callable[[jax.Array], jax.Array]) -> tuple[jax.Array, jax.Array]:
        y = keep(jnp.maximum(x, 0))
        return y.sum(0), y[::2] * y[1::2]

    x = jnp.asarray(np.random.default_rng(0).standard_normal((64, 64)), jnp.float32)
    times = []
    for keep in (computed_once, lambda y: y):
        hlo = jax.jit(partial(read_twice, keep=keep)).lower(x).compile().as_text()
        times.append(hlo.count(" maximum("))
    assert times[0] == 1 < times[1], "XLA no longer does what `computed_once` is there for"
    np.testing.assert_array_equal(computed_once(x), x)
    np.testing.assert_array_equal(jax.grad(lambda x: (computed_once(x) ** 2).sum())(x), 2 * x)


def test_gelu_is_exact():
    x = np.linspace(-6, 6, 1001, dtype=np.float32)
    expected = [value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x.tolist()]
    np.testing.assert_allclose(gelu(jnp.asarray(x)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rows", [16, 24, 10])  # the last does not split into eight parts
def test_products_and_their_derivatives(rows: int):
    rng = np.random.default_rng(0)
    x, kernel, y = (rng.standard_normal(shape) for shape in ((3, rows), (rows, 7), (3, 7)))
    given = [jnp.asarray(array, jnp.float32) for array in (x, kernel, y)]
    found, pull_back = jax.vjp(product, *given[:2])
    transposed, pull_back_transposed = jax.vjp(times_transposed, given[2], given[1])
    expected = ((found, x @ kernel), (transposed, y @ kernel.T))
    expected += tuple(zip(pull_back(given[2]), (y @ kernel.T, x.T @ y), strict=True))
    expected += tuple(zip(pull_back_transposed(given[0]), (x @ kernel, x.T @ y), strict=True))
    for result, reference in expected:  # in float64
        np.testing.assert_allclose(result, reference, rtol=0, atol=1e-5)


def test_only_a_cpu_multiplies_by_parts_of_a_transposed_kernel():
    traced = jax.jit(times_transposed).trace(jnp.zeros((2, 6)), jnp.zeros((16, 6)))
    assert "batching_dims = [0] x [0]" in traced.lower(lowering_platforms=("cpu",)).as_text()
    assert "batching_dims" not in traced.lower(lowering_platforms=("cuda",)).as_text()
