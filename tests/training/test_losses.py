"""Losses against PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from castream_jax.training.losses import binary_cross_entropy, cross_entropy, distillation
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


def test_distillation_is_least_where_both_predict_the_same():
    """`-sum p log q` by hand, its derivative `q - p`, and none for the teacher."""
    logits, teacher = (np.random.default_rng(seed).standard_normal((5, 4)).astype(np.float32) for seed in (0, 1))
    p, q = (np.exp(x - scipy.special.logsumexp(x, 1, keepdims=True)) for x in (teacher, logits))
    np.testing.assert_allclose(distillation(*map(jnp.asarray, (logits, teacher))), -(p * np.log(q)).sum(1), rtol=1e-5)
    of_logits, of_teacher = jax.grad(lambda x, t: distillation(x, t).sum(), argnums=(0, 1))(logits, teacher)
    np.testing.assert_allclose(of_logits, q - p, rtol=0, atol=1e-6)
    assert not np.asarray(of_teacher).any()
