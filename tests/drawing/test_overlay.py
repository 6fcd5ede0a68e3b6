"""Maps over images."""

import numpy as np

from castream_jax.drawing.overlay import overlay


def test_overlay_interpolates_at_half_pixels():
    # Along one row 0, 1 becomes 0, 1/4, 3/4, 1 with half-pixel centres (0, 1/3, 2/3, 1 with aligned corners).
    black = np.zeros((1, 4, 3), np.uint8)
    expected = overlay(black, np.array([[0, 0.25, 0.75, 1]], np.float32))
    np.testing.assert_array_equal(overlay(black, np.array([[0, 1]], np.float32)), expected)
