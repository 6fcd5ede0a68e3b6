"""Baselines, and maps turned into their opposite."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy import stats

import castream_jax as castream
from castream_jax.runtime.mesh import data_mesh, replicate, shard_batch

PROTOCOL = castream.get_protocol("castream")
PIXELS = np.round(np.random.default_rng(0).random((64, 16, 24, 3)) * 255).astype(np.float32) / 255
LABELS = np.zeros(64, np.int32)


def test_random_maps_are_uniform_and_independent(small_model):
    maps = castream.attribute(small_model, PIXELS, LABELS, ("random",))
    np.testing.assert_array_equal(maps["gap", "random"], maps["ca", "random"])
    values = np.asarray(maps["gap", "random"])
    assert stats.kstest(values.ravel(), "uniform").pvalue > 0.001
    correlations = np.corrcoef(values.reshape(64, -1))[np.triu_indices(64, 1)]
    # Of 24 independent positions: mean 0, deviation 1 / sqrt(23); 2,016 pairs.
    assert abs(correlations.mean()) < 0.02
    assert 0.18 < correlations.std() < 0.24


@pytest.mark.slow
def test_random_maps_depend_on_the_image_and_the_seed_alone(small_model):
    maps = castream.attribute(small_model, PIXELS, LABELS, ("random",))["gap", "random"]
    again = castream.attribute(small_model, PIXELS[5:2:-1], LABELS[:3] + 4, ("random",))["gap", "random"]
    np.testing.assert_array_equal(again, maps[5:2:-1])
    for rounded in (np.nextafter(PIXELS[:4], 0), np.nextafter(PIXELS[:4], 1)):  # another way of dividing by 255
        near = castream.attribute(small_model, rounded, LABELS[:4], ("random",))["gap", "random"]
        np.testing.assert_array_equal(near, maps[:4])
    seeded = dataclasses.replace(PROTOCOL, seed=1)
    assert (
        np.abs(castream.attribute(small_model, PIXELS, LABELS, ("random",), seeded)["gap", "random"] - maps).min() > 0
    )
    one_pixel = PIXELS[:1].copy()
    one_pixel[0, 15, 23, 2] = 1 - one_pixel[0, 15, 23, 2]
    assert (
        np.abs(castream.attribute(small_model, one_pixel, LABELS[:1], ("random",))["gap", "random"] - maps[:1]).min()
        > 0
    )


def test_random_maps_are_the_same_on_several_devices(small_model):
    assert jax.device_count() == 4
    mesh = data_mesh()
    batch = shard_batch({"pixels": PIXELS[:8], "label": LABELS[:8]}, mesh)
    split = castream.attribute(replicate(small_model, mesh), batch["pixels"], batch["label"], ("random", "centre"))
    whole = castream.attribute(small_model, PIXELS[:8], LABELS[:8], ("random", "centre"))
    for key, saliency in whole.items():
        np.testing.assert_array_equal(split[key], saliency)


def test_centre_is_a_gaussian_of_a_quarter_of_the_side(small_model):
    pixels = np.zeros((2, 20, 36, 3), np.float32)  # 5 x 9 positions: an odd number has one at the centre
    saliency = np.asarray(castream.attribute(small_model, pixels, LABELS[:2], ("centre",))["ca", "centre"])
    density = [stats.norm.pdf(np.arange(side), (side - 1) / 2, side / 4) for side in (5, 9)]
    expected = np.outer(*(values / values.max() for values in density))
    np.testing.assert_allclose(saliency, np.stack([expected, expected]), rtol=1e-5)
    even = castream.attribute(small_model, PIXELS[:2], LABELS[:2], ("centre",))["ca", "centre"]
    np.testing.assert_allclose(even.max((1, 2)), 1, rtol=1e-6)


def test_centre_is_no_map_of_ones_where_the_last_map_is_small(small_model):
    maps = castream.attribute(small_model, np.zeros((1, 8, 4, 3), np.float32), LABELS[:1], ("centre",))  # 2 x 1
    assert maps["ca", "centre"].shape == (1, 4, 4)
    np.testing.assert_allclose(maps["ca", "centre"].min(), np.exp(-2), rtol=1e-6)  # a corner, of the middle four 1


def test_any_map_can_be_inverted(small_model):
    methods = ("gradcam++", "random", "ones", "attention:1")
    inverted = tuple(f"inverted-{method}" for method in methods)
    maps = castream.attribute(small_model, PIXELS[:4], LABELS[:4], (*methods, *inverted))
    assert len(maps) == 2 * (2 * 3 + 1)
    for head, method in maps:
        if not method.startswith("inverted-"):
            expected = 1 - np.asarray(maps[head, method])
            np.testing.assert_allclose(maps[head, f"inverted-{method}"], expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="no attribution method 'inverted-gradcamm': did you mean 'gradcam'"):
        castream.attribute(small_model, PIXELS[:4], LABELS[:4], ("inverted-gradcamm",))


@pytest.mark.slow
def test_all_ones_changes_no_probability_and_its_inverse_erases_the_image(small_model):
    maps = castream.attribute(small_model, PIXELS[:4], LABELS[:4], ("ones", "inverted-ones"))
    scores = castream.score(small_model, PIXELS[:4], LABELS[:4], maps)
    for head in small_model.heads:
        of_ones, of_zeros = scores[head, "ones"], scores[head, "inverted-ones"]
        np.testing.assert_allclose(of_ones["o"], of_ones["p"], rtol=1e-5)
        black = jax.nn.softmax(small_model(np.zeros((1, 16, 24, 3), np.float32))[head])[0, 0]
        np.testing.assert_allclose(of_zeros["o"], np.full(4, black), rtol=1e-5)
