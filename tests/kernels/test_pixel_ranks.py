"""The order of pixels: by falling saliency, of equal ones by place, in both forms."""

from functools import partial

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from castream_jax.kernels import pixel_ranks as kernel_file
from castream_jax.kernels.pixel_ranks import pixel_ranks

maps = hnp.arrays(np.float32, (2, 4, 5), elements=st.floats(-1, 1, width=16))


@pytest.mark.parametrize("form", [pixel_ranks, kernel_file.textbook])
@given(saliency=maps)
def test_ranks_order_pixels_by_falling_saliency_and_equals_by_place(form, saliency: np.ndarray):
    for ties, direction in (("last_first", -1), ("first_first", 1)):
        ranks = np.asarray(jax.jit(form, static_argnums=1)(saliency, ties)).reshape(2, -1)
        for values, places in zip(saliency.reshape(2, -1), ranks, strict=True):
            expected = sorted(range(20), key=lambda pixel: (-values[pixel], direction * pixel))
            np.testing.assert_array_equal(np.argsort(places), expected)


@pytest.mark.parametrize("ties", ["last_first", "first_first"])
@pytest.mark.parametrize("shape", [(3, 17, 14), (1, 1, 9)])
def test_it_is_the_textbooks(shape: tuple[int, ...], ties):
    saliency = np.random.default_rng(0).random(shape, np.float32).round(1)
    saliency[saliency == 0.5] *= -0.0  # equal to 0
    found = pixel_ranks(jnp.asarray(saliency), ties)
    expected = kernel_file.textbook(jnp.asarray(saliency), ties)
    assert found.dtype == expected.dtype == jnp.int32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("form", [pixel_ranks, kernel_file.textbook])
def test_places_have_no_derivative(form):
    saliency = jnp.asarray(np.random.default_rng(0).random((1, 3, 4), np.float32))

    @jax.jit
    @partial(jax.grad, argnums=(0, 1))
    def derivatives(saliency: jax.Array, weight: jax.Array) -> jax.Array:
        return (form(saliency, "last_first") * weight).sum()

    of_saliency, of_weight = derivatives(saliency, jnp.ones_like(saliency))
    np.testing.assert_array_equal(of_saliency, 0)
    np.testing.assert_array_equal(of_weight, form(saliency, "last_first"))
