"""Intervals and tests against SciPy, closed forms and float64."""

import numpy as np
import pytest
import scipy.stats

from castream_jax.evaluation import statistics
from castream_jax.evaluation.statistics import bootstrap_means, interval, sign_test


@pytest.mark.parametrize(("differing", "excludes"), [(1, False), (2, False), (3, False), (4, True)])
@pytest.mark.parametrize("images", [60, 100, 359])
def test_a_few_images_that_differ_establish_nothing(differing: int, excludes: bool, images: int):
    """Resamples without any of k such images are exp(-k) of all: above 2.5 % for k = 3, below for k = 4."""
    values = np.zeros((images, 1))
    values[:differing] = 1 / 3
    low, _ = interval(bootstrap_means(values, np.arange(images)))
    assert (low[0] > 0) == excludes
    assert excludes or low[0] == 0


def test_samples_are_those_of_a_plain_float64_loop():
    # 1e-6 relative to the spread: counts times values are summed in float32.
    rng = np.random.default_rng(1)
    values = rng.normal(5, 2, (37, 3))
    samples = bootstrap_means(values, np.arange(37), resamples=50, seed=3)
    draws = np.random.default_rng(3).integers(0, 37, (50, 37))
    np.testing.assert_allclose(samples, values[draws].mean(axis=1), rtol=0, atol=2e-6)


def test_an_image_is_drawn_with_all_its_rows_whatever_their_order():
    rng = np.random.default_rng(2)
    images = rng.integers(0, 12, 40)
    values = rng.normal(size=(40, 2))
    samples = bootstrap_means(values, images, resamples=20, seed=5)
    names = np.unique(images)
    for sample, draw in zip(samples, np.random.default_rng(5).integers(0, len(names), (20, len(names))), strict=True):
        rows = np.concatenate([np.flatnonzero(images == names[i]) for i in draw])
        np.testing.assert_allclose(sample, values[rows].mean(axis=0), rtol=0, atol=1e-6)
    order = rng.permutation(40)
    np.testing.assert_allclose(bootstrap_means(values[order], images[order], resamples=20, seed=5), samples, atol=1e-6)


def test_blocks_bound_the_memory_and_not_the_numbers(monkeypatch):
    values = np.random.default_rng(0).random((30, 2))
    whole = bootstrap_means(values, np.arange(30), resamples=101)
    monkeypatch.setattr(statistics, "_DRAWS", 200)
    np.testing.assert_allclose(bootstrap_means(values, np.arange(30), resamples=101), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("draw", ["exponential", "normal"])
def test_interval_is_scipys(draw: str):
    # 3 % of the width: two independent bootstraps of 10,000 resamples each.
    values = getattr(np.random.default_rng(4), draw)(size=400)
    ours = interval(bootstrap_means(values[:, None], np.arange(400)))[:, 0]
    theirs = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=1)
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    np.testing.assert_allclose(ours, theirs.confidence_interval, rtol=0, atol=0.03 * width)
    half = 1.96 * values.std() / np.sqrt(400)  # what it tends to
    np.testing.assert_allclose(ours, [values.mean() - half, values.mean() + half], rtol=0, atol=0.1 * half)


def test_columns_share_their_draws():
    """The bootstrap of a difference is the difference of bootstraps: a constant shift has no spread at all."""
    values = np.random.default_rng(6).random((50, 1))
    samples = bootstrap_means(np.concatenate([values, values + 0.25], axis=1), np.arange(50), resamples=200)
    np.testing.assert_allclose(samples[:, 1] - samples[:, 0], 0.25, rtol=0, atol=1e-6)


def test_sign_test_drops_ties_and_counts_images():
    # Images 0 … 9: eight higher, one lower, one tied; image 0 has three rows whose mean is positive.
    images = np.array([0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    differences = np.array([1, -0.1, -0.1, *[0.5] * 7, -0.3, 0.0])
    test = sign_test(differences, images)
    assert test[:3] == (8, 1, 1)
    assert test.p == pytest.approx(2 * (1 + 9) / 2**9)  # P(at most 1 of 9 coins), both tails
    assert sign_test(np.full(4, 1e-7), np.arange(4)) == (0, 0, 4, 1.0)
