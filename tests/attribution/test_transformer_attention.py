"""Attention rollout and LeGrad; beside PyTorch they are compared in `tests/importing/test_import_torch.py`."""

import jax.numpy as jnp
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.attribution.transformer_attention import followed


def test_attention_is_followed_through_all_blocks():
    attention = np.random.default_rng(0).dirichlet(np.ones(5), size=(2, 3, 5))
    expected = np.stack([np.eye(5)] * 2)
    for block in range(3):
        expected = (attention[:, block] + np.eye(5)) / 2 @ expected
    found = np.asarray(followed(jnp.asarray(attention, jnp.float32)))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize("method", ["rollout", "legrad", "legrad:2"])
def test_a_network_without_such_attention_is_refused(method: str, small_model: castream.Model):
    pixels = np.zeros((1, 32, 32, 3), np.float32)
    with pytest.raises(ValueError, match=r"^'?.*cifar_resnet8 is no transformer .* choose another method"):
        castream.attribute(small_model, pixels, np.zeros(1, np.int32), (method,))
