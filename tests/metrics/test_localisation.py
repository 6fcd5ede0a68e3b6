"""Pointing game, energy and box IoU against plain loops over pixels."""

import numpy as np
import pytest

from castream_jax.metrics.localisation import box_iou, energy_pointing_game, pointing_game, saliency_box

HEIGHT, WIDTH = 12, 16


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    saliency = rng.random((20, HEIGHT, WIDTH))
    corners = rng.integers(0, 6, (20, 2, 2))
    boxes = np.concatenate([corners, corners + rng.integers(2, 7, (20, 2, 2))], axis=2)
    valid = np.stack([np.ones(20, bool), rng.random(20) < 0.5], axis=1)
    return saliency, boxes, valid


def inside(x: int, y: int, boxes: np.ndarray, valid: np.ndarray) -> bool:
    return any(v and x0 <= x < x1 and y0 <= y < y1 for (x0, y0, x1, y1), v in zip(boxes, valid, strict=True))


@pytest.mark.parametrize("tolerance", [0, 2.5])
def test_pointing_game(case, tolerance: float):
    expected = []
    for one, boxes, valid in zip(*case, strict=True):
        _, y, x = max((one[y, x], y, x) for y in range(HEIGHT) for x in range(WIDTH))
        near = [
            inside(u, v, boxes, valid)
            for v in range(HEIGHT)
            for u in range(WIDTH)
            if np.hypot(u - x, v - y) <= tolerance
        ]
        expected.append(any(near))
    assert 0 < sum(expected) < 20
    np.testing.assert_array_equal(pointing_game(*case, tolerance=tolerance), expected)


def test_energy(case):
    expected = [
        sum(one[y, x] for y in range(HEIGHT) for x in range(WIDTH) if inside(x, y, boxes, valid)) / one.sum()
        for one, boxes, valid in zip(*case, strict=True)
    ]
    np.testing.assert_allclose(energy_pointing_game(*case), expected, rtol=1e-12)
    np.testing.assert_array_equal(energy_pointing_game(np.zeros((1, 4, 4)), np.array([[[0, 0, 2, 2]]])), [0])


def test_a_maps_box_is_that_of_its_largest_component():
    saliency = np.zeros((HEIGHT, WIDTH))
    saliency[1:3, 1:3] = 1.0
    saliency[5:9, 6:12] = 0.5
    assert saliency_box(saliency) == (6, 5, 12, 9)
    assert saliency_box(saliency, 0.6) == (1, 1, 3, 3)
    assert saliency_box(np.zeros((4, 4))) == (0, 0, 0, 0)
    boxes = np.array([[[6, 5, 12, 9], [0, 0, 3, 3]]])
    np.testing.assert_allclose(box_iou(saliency[None], boxes, thresholds=(0.2, 0.6)), [[1, 4 / 9]])
    one_valid = np.array([[False, True]])
    np.testing.assert_allclose(box_iou(saliency[None], boxes, one_valid, thresholds=(0.2, 0.6)), [[0, 4 / 9]])


def test_boxes_that_cannot_be_are_refused():
    saliency = np.ones((1, 4, 4))
    with pytest.raises(ValueError, match=r"boxes must be \[B, N, 4\]"):
        pointing_game(saliency, np.array([[0, 0, 2, 2]]))
    with pytest.raises(ValueError, match="some valid box has no extent"):
        pointing_game(saliency, np.array([[[2, 0, 2, 2]]]))
    with pytest.raises(ValueError, match="No pixel of image 0"):
        energy_pointing_game(saliency, np.array([[[5, 5, 7, 7]]]))
