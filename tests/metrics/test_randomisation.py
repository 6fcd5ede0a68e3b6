"""Cascading randomisation: what depends on the weights changes, what does not stays, and the model is left alone."""

from flax import nnx
import jax
import numpy as np
import pytest
import scipy.stats

from castream_jax.metrics.randomisation import cascading_randomisation, rank_correlation


@pytest.fixture(scope="module")
def case(small_model):
    rng = np.random.default_rng(0)
    pixels = rng.random((4, 32, 32, 3), np.float32)
    return small_model, pixels, rng.integers(0, 10, 4).astype(np.int32)


def test_maps_change_with_the_weights_they_explain(case):
    model, pixels, labels = case
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model)))
    rows = cascading_randomisation(model, pixels, labels, ("gradcam", "attention", "centre"))
    jax.tree.map(np.testing.assert_array_equal, before, nnx.to_pure_dict(nnx.state(model)))
    found = {(row["randomised"], row["head"], row["method"]): row["rank_correlation"] for row in rows}
    assert list(dict.fromkeys(row["randomised"] for row in rows)) == ["nothing", "classifier", "S3", "S2", "S1", "S0"]
    for (stage, head, method), value in found.items():
        if stage == "nothing" or method == "centre":
            assert value == pytest.approx(1), (stage, head, method)
        elif method == "attention" and stage in ("classifier", "S3"):
            assert value == pytest.approx(1), "the last attention comes before the last projection and the classifier"
        else:
            assert value < 0.99, (stage, head, method)
    assert found["S0", "gap", "gradcam"] == found["classifier", "gap", "gradcam"], "GAP has no stream"
    assert rows == cascading_randomisation(model, pixels, labels, ("gradcam", "attention", "centre"))


def test_rank_correlation_is_spearmans_and_knows_constant_maps():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (2, 6, 4, 4)).astype(np.float32)
    expected = [scipy.stats.spearmanr(x.ravel(), y.ravel())[0] for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(rank_correlation(a, b), expected, atol=1e-12)
    constant = np.zeros_like(a)
    np.testing.assert_array_equal(rank_correlation(a, constant), np.zeros(6))
    np.testing.assert_array_equal(rank_correlation(constant, constant + 1), np.ones(6))
