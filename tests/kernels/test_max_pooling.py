"""Max-pooling: both forms give the same maxima; of equal ones, each has a derivative of its own."""

from agreement import assert_forms_agree, normal, value_and_derivatives
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from castream_jax.kernels import max_pooling as kernel_file
from castream_jax.kernels.max_pooling import max_pool

SHAPES = [(2, 9, 8, 3), (1, 1, 7, 2), (2, 6, 6, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_textbooks(shape: tuple[int, ...]):
    # Maxima are exact; a pixel's derivative is a sum over four windows.
    assert_forms_agree(max_pool, kernel_file.textbook, normal(*shape), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_equal_values_are_no_matter(dtype: str):
    x = jnp.round(normal(2, 9, 8, 3)).astype(dtype)
    np.testing.assert_array_equal(max_pool(x), kernel_file.textbook(x))


def test_after_a_relu_equal_zeros_have_no_derivative():
    x = normal(2, 9, 8, 3) - 1  # most windows hold zeros alone
    forms = (lambda x, pool=pool: pool(jax.nn.relu(x)) for pool in (max_pool, kernel_file.textbook))
    assert_forms_agree(*forms, x, atol=1e-6)


def test_of_equal_maxima_one_or_all_together_have_the_derivative():
    x = jnp.ones((1, 3, 3, 1))  # four windows of four pixels; the one in the middle lies in all of them
    shared, first = (value_and_derivatives(pool, x)[1] for pool in (max_pool, kernel_file.textbook))
    np.testing.assert_allclose(shared.sum(), first.sum(), rtol=1e-6)
