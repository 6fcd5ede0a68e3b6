"""Accuracy, top-k and average precision against their definitions."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from castream_jax.metrics.average_precision import average_precision, mean_average_precision
from castream_jax.metrics.recognition import correct, top_k_correct


def test_top_k_counts_a_label_among_the_k_largest():
    rng = np.random.default_rng(0)
    logits, labels = rng.random((50, 7), np.float32), rng.integers(0, 7, 50)
    ranks = (-logits).argsort(1)
    for k in (1, 3, 5):
        expected = [label in ranks[i, :k] for i, label in enumerate(labels)]
        np.testing.assert_array_equal(top_k_correct(logits, labels, k), expected)
    np.testing.assert_array_equal(top_k_correct(logits, labels, 1), correct(logits, labels))
    assert np.asarray(top_k_correct(logits, labels, 9)).all()
    equal = np.zeros((1, 7), np.float32)
    assert bool(top_k_correct(equal, np.array([4]))[0])
    assert not bool(top_k_correct(equal, np.array([5]))[0]), "of equal logits, the lower classes come first"


def step_precision(scores: np.ndarray, positives: np.ndarray, *, envelope: bool) -> float:
    """Walks down the ranking, plainly: each positive adds its share of recall times the precision there."""
    order = np.argsort(-scores)
    precision = [positives[order[: n + 1]].mean() for n in range(len(order))]
    if envelope:
        precision = [max(precision[n:]) for n in range(len(order))]
    return sum(p for p, i in zip(precision, order, strict=True) if positives[i]) / positives.sum()


@pytest.mark.parametrize("interpolated", [False, True])
def test_average_precision_is_its_definition(interpolated: bool):
    rng = np.random.default_rng(0)
    scores, positives = rng.random((40, 4)), rng.random((40, 4)) < [0.1, 0.5, 0.9, 0.0]
    found = average_precision(scores, positives, interpolated=interpolated)
    for k in range(3):
        assert found[k] == pytest.approx(step_precision(scores[:, k], positives[:, k], envelope=interpolated))
    assert np.isnan(found[3])
    assert mean_average_precision(scores, positives, interpolated=interpolated) == pytest.approx(found[:3].mean())
    if not interpolated:
        expected = average_precision_score(positives[:, :3], scores[:, :3], average="macro")
        assert mean_average_precision(scores, positives) == pytest.approx(expected)


def test_average_precision_refuses_what_it_cannot_rank():
    with pytest.raises(ValueError, match="needs at least one positive image"):
        mean_average_precision(np.ones((3, 2)), np.zeros((3, 2), bool))
    with pytest.raises(ValueError, match="some are NaN or infinite"):
        average_precision(np.full((3, 2), np.nan), np.ones((3, 2), bool))
