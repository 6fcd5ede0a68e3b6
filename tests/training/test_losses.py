"""Losses against PyTorch's."""

import jax.numpy as jnp
import numpy as np
import pytest

from castream_jax.training.losses import binary_cross_entropy, cross_entropy
from castream_jax.training.step import hit


@pytest.fixture
def logits() -> np.ndarray:
    return (5 * np.random.default_rng(0).standard_normal((16, 7))).astype(np.float32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_pytorchs(torch, logits, smoothing: float):
    labels = np.arange(16, dtype=np.int32) % 7
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(logits), torch.tensor(labels).long(), reduction="none", label_smoothing=smoothing
    )
    ours = cross_entropy(jnp.asarray(logits), jnp.asarray(labels), smoothing)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6, atol=1e-6)


def test_binary_cross_entropy_is_pytorchs(torch, logits):
    targets = (np.random.default_rng(1).random((16, 7)) < 0.3).astype(np.float32)
    theirs = torch.nn.BCEWithLogitsLoss()(torch.tensor(logits), torch.tensor(targets))
    ours = binary_cross_entropy(jnp.asarray(logits), jnp.asarray(targets)).mean()
    np.testing.assert_allclose(ours, theirs.item(), rtol=1e-6)


def test_a_hit_is_the_label_or_one_of_several():
    logits = jnp.asarray([[1.0, 3.0, 2.0], [4.0, 0.0, 1.0]])
    assert hit(logits, jnp.asarray([1, 2])).tolist() == [1, 0]
    assert hit(logits, jnp.asarray([[1, 1, 0], [0, 1, 1]], jnp.float32)).tolist() == [1, 0]
