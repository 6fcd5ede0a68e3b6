"""Pixel order, blur and area of insertion and deletion."""

from hypothesis import given
from hypothesis import strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from castream_jax.metrics import causal


@pytest.mark.parametrize(("height", "rows", "steps"), [(224, 8, 28), (32, 8, 4), (224, 1, 224), (20, 8, 3), (5, 8, 1)])
def test_steps_cover_all_rows(height: int, rows: int, steps: int):
    moved = causal.pixels_moved(height, 10, rows)
    assert moved.tolist() == [*(10 * rows * step for step in range(steps)), 10 * height]


@given(height=st.integers(1, 40), width=st.integers(1, 40), steps=st.integers(1, 60))
def test_a_number_of_steps_moves_equally_many_pixels_until_the_last(height: int, width: int, steps: int):
    moved = causal.pixels_moved(height, width, rows_per_step=8, num_steps=steps)
    sizes = np.diff(moved)
    assert moved[0] == 0
    assert moved[-1] == height * width
    assert len(sizes) <= steps
    assert set(sizes[:-1]) <= {-(-height * width // steps)}
    assert 0 < sizes[-1] <= sizes[0]


def test_blur_kernel_is_the_official_one(golden):
    np.testing.assert_array_equal(causal.blur_kernel(5, 5.0), golden["blur_kernel"])


@pytest.mark.parametrize("size", [5, 11])
def test_blur_is_a_convolution_with_zeros_outside(size: int):
    image = np.random.default_rng(0).standard_normal((2, 13, 9, 3)).astype(np.float32)
    kernel = causal.blur_kernel(size, 5.0)
    expected = scipy.ndimage.convolve(image.astype(np.float64), kernel[None, :, :, None], mode="constant")
    np.testing.assert_allclose(causal.blur(jnp.asarray(image), kernel), expected, atol=1e-5)


@pytest.mark.parametrize("at", [np.linspace(0, 1, 29), np.append(np.arange(28) / 27.3, 1)])
def test_area_is_numpys_trapezoid(at: np.ndarray):
    curve = np.random.default_rng(0).random((3, 29)).astype(np.float32)
    expected = np.trapezoid(curve.astype(np.float64), at, axis=1)
    np.testing.assert_allclose(causal.area_under_curve(jnp.asarray(curve), at), expected, rtol=1e-6)
