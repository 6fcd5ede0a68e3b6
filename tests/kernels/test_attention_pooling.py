"""Attention pooling: the derivative that is written out is the automatic one."""

from agreement import assert_forms_agree, normal
import numpy as np
import pytest

from castream_jax.kernels import attention_pooling as kernel_file
from castream_jax.kernels.attention_pooling import weighted_sum


@pytest.mark.parametrize("positions", [1, 35])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("shared", [False, True])
def test_it_is_the_textbooks(shared: bool, heads: int, positions: int):
    attention = normal(2, heads, positions)
    features = normal(2, positions, *(() if shared else (heads,)), 5, seed=2)
    # Sums of up to 35 products of N(0, 1).
    assert_forms_agree(weighted_sum, kernel_file.textbook, attention, features, atol=1e-5)
    expected = np.einsum("bnp,bpc->bnc" if shared else "bnp,bpnc->bnc", attention, features)
    np.testing.assert_allclose(weighted_sum(attention, features), expected, rtol=0, atol=1e-5)
