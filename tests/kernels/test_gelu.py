"""GELU: both forms are exact."""

import math

from agreement import assert_forms_agree
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from castream_jax.kernels import gelu as kernel_file
from castream_jax.kernels.gelu import gelu

X = jnp.linspace(-6, 6, 1001)


def test_it_is_the_textbooks():
    # The error function near -1 has lost digits that its complement has: some 1e-7 times x.
    assert_forms_agree(gelu, kernel_file.textbook, X, atol=2e-6)


@pytest.mark.parametrize("form", [gelu, kernel_file.textbook])
def test_it_is_exact(form):
    expected = [value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in X.tolist()]
    np.testing.assert_allclose(jax.jit(form)(X), expected, rtol=0, atol=1e-6)
