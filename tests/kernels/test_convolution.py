"""Convolutions: the CPU's forms equal the textbook's, and are quick where XLA's own are slow."""

from functools import partial

from agreement import assert_forms_agree, normal, value_and_derivatives
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from castream_jax.kernels import convolution as kernel_file
from castream_jax.kernels.convolution import convolution


def even(padding: int) -> kernel_file.Padding:
    return (padding, padding), (padding, padding)


# Sums of up to 7 x 7 x 4 products of N(0, 1) in other orders, whose float32 rounding is some 1e-6 of their size.
ATOL = 1e-4


@pytest.mark.parametrize(("height", "width"), [(9, 8), (7, 12)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize(("channels", "out_channels", "groups"), [(6, 6, 6), (8, 12, 4), (4, 8, 4)])
def test_grouped_and_depthwise(channels, out_channels, groups, size, stride, height, width):
    x, kernel = normal(2, height, width, channels), normal(size, size, channels // groups, out_channels, seed=2)
    options = {"stride": stride, "padding": even((size - 1) // 2), "groups": groups}
    found, expected = (jax.jit(partial(form, **options))(x, kernel) for form in (convolution, kernel_file.textbook))
    np.testing.assert_allclose(found, expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [6, 2])
def test_derivatives_of_groups(groups: int, stride: int):
    options = {"stride": stride, "padding": even(1), "groups": groups}
    x, kernel = normal(2, 9, 8, 6), normal(3, 3, 6 // groups, 6, seed=2)
    assert_forms_agree(partial(convolution, **options), partial(kernel_file.textbook, **options), x, kernel, atol=ATOL)


@pytest.mark.parametrize(
    ("height", "width", "size", "stride", "padding"),
    [
        (9, 8, 3, 1, even(1)),
        (9, 8, 3, 2, even(1)),
        (31, 28, 7, 2, even(3)),
        (8, 8, 2, 2, even(0)),
        (33, 35, 4, 4, even(0)),
        (16, 17, 5, 1, even(0)),
        (8, 9, 3, 2, ((0, 1), (1, 1))),
        (12, 11, 5, 2, ((1, 2), (2, 2))),
    ],
)
def test_derivatives_are_those_of_xla_and_quick_in_a_loop(height, width, size, stride, padding):
    options = {"stride": stride, "padding": padding, "groups": 1}
    convolve = partial(convolution, **options)
    x, kernel = normal(2, height, width, 3), normal(size, size, 3, 4, seed=2)
    # The kernel's derivative sums up to 2 x 31 x 28 products.
    assert_forms_agree(convolve, partial(kernel_file.textbook, **options), x, kernel, atol=3 * ATOL)
    looped = jax.jit(lambda x, kernel: lax.map(lambda x: value_and_derivatives(convolve, x, kernel), x[None]))
    hlo = looped.lower(x, kernel).compile().as_text()
    layouts = {line.split("dim_labels=")[1].split(",")[0] for line in hlo.splitlines() if " convolution(" in line}
    assert layouts == {"b01f_01io->b01f"}, "the only one that XLA's CPU backend has a library for"


@pytest.mark.parametrize("stride", [1, 2])
def test_one_by_one_is_a_product(stride: int):
    options = {"stride": stride, "padding": even(0), "groups": 1}
    x, kernel = normal(2, 7, 5, 3), normal(1, 1, 3, 4, seed=2)
    assert_forms_agree(partial(convolution, **options), partial(kernel_file.textbook, **options), x, kernel, atol=ATOL)
    hlo = jax.jit(partial(convolution, **options)).lower(x, kernel).as_text()
    assert "dot_general" in hlo
    assert "stablehlo.convolution" not in hlo


@pytest.mark.parametrize("groups", [6, 2])
def test_only_a_cpu_takes_groups_apart(groups: int):
    x, kernel = jnp.zeros((1, 8, 8, 6)), jnp.zeros((3, 3, 6 // groups, 6))
    traced = jax.jit(partial(convolution, padding=1, groups=groups)).trace(x, kernel)
    form = f"feature_group_count = {groups} "
    assert form in traced.lower(lowering_platforms=("cuda",)).as_text()
    assert form not in traced.lower(lowering_platforms=("cpu",)).as_text()
