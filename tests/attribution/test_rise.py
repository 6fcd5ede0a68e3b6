"""RISE: its masks against NumPy's interpolation, its map against a plain mean over masks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.attribution import min_max
from castream_jax.attribution.rise import rise_masks


def protocol(**fields) -> castream.Protocol:
    return dataclasses.replace(castream.get_protocol("castream"), **fields)


def interpolated(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with half-pixel centres, rows and columns one by one."""
    rows, columns = ((np.arange(n) + 0.5) * len(grid) / n - 0.5 for n in size)
    wide = np.stack([np.interp(columns, np.arange(len(grid)), row) for row in grid])
    return np.stack([np.interp(rows, np.arange(len(grid)), column) for column in wide.T], axis=1)


def test_a_mask_is_a_random_grid_enlarged_shifted_and_cropped():
    """Each mask must be a crop, at an offset of less than a cell, of the grid that its number draws."""
    height, width, cells = 30, 17, 4
    masks = np.asarray(rise_masks(jnp.arange(40), height, width, protocol(rise_cells=cells, seed=3)))
    assert masks.shape == (40, height, width)
    cell_height, cell_width = 8, 5  # ceil(30 / 4), ceil(17 / 4)
    offsets = set()
    for number, mask in enumerate(masks):
        grid_key, *_ = jax.random.split(jax.random.fold_in(jax.random.key(3), number), 3)
        grid = np.asarray(jax.random.bernoulli(grid_key, 0.5, (cells, cells)), np.float64)
        large = interpolated(grid, ((cells + 1) * cell_height, (cells + 1) * cell_width))
        fits = [
            (y, x)
            for y in range(cell_height)
            for x in range(cell_width)
            if np.abs(large[y : y + height, x : x + width] - mask).max() < 1e-5
        ]
        assert fits, number
        offsets.update(fits[:1])
    assert {y for y, _ in offsets} >= {0, cell_height - 1}
    assert {x for _, x in offsets} >= {0, cell_width - 1}


@pytest.mark.slow
def test_masks_are_on_as_often_as_asked():
    # 2,000 masks of 16 independent cells: a standard error of 0.0026 for the mean over all.
    for probability in (0.2, 0.5):
        masks = rise_masks(jnp.arange(2000), 16, 16, protocol(rise_cells=4, rise_probability=probability))
        assert abs(float(masks.mean()) - probability) < 0.01
    other = rise_masks(jnp.arange(5), 16, 16, protocol(rise_cells=4, seed=1))
    assert not np.allclose(other, rise_masks(jnp.arange(5), 16, 16, protocol(rise_cells=4)))


@pytest.mark.slow
def test_the_map_is_the_mean_of_masks_by_class_probability(small_model):
    rng = np.random.default_rng(0)
    pixels = jnp.asarray(rng.random((3, 16, 20, 3)), jnp.float32)
    labels = jnp.asarray([3, 1, 4])
    backbone, predict = small_model.backbone, jax.jit(small_model.predict)
    for space in ("pixels", "normalised"):
        choices = protocol(rise_masks=30, rise_cells=5, rise_probability=0.4, masked_space=space)
        masks = rise_masks(jnp.arange(30), 16, 20, choices)
        maps = castream.attribute(small_model, pixels, labels, ("rise",), choices, chunk=7)
        for image in range(3):
            shown = pixels[image][None] * masks[..., None]
            if space == "normalised":
                shown = backbone.denormalise(backbone.normalise(pixels[image][None]) * masks[..., None])
            for head, probabilities in predict(shown).items():
                of_class = np.asarray(probabilities[:, labels[image]], np.float64)
                mean = np.tensordot(of_class, np.asarray(masks, np.float64), 1) / (30 * 0.4)
                expected = min_max(jnp.asarray(mean, jnp.float32)[None])[0]
                # 1e-4: a map in [0, 1] is what 30 masks differ by, a tenth of their mean or less.
                np.testing.assert_allclose(maps[head, "rise"][image], expected, rtol=0, atol=1e-4)
                assert maps[head, "rise"].shape == (3, 16, 20)
