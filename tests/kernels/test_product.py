"""Products with a matrix and with its transpose: what a CPU computes in parts is the textbook's."""

from agreement import assert_forms_agree, normal
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from castream_jax.kernels import product as product_file
from castream_jax.kernels import times_transposed as transposed_file
from castream_jax.kernels.product import product
from castream_jax.kernels.times_transposed import times_transposed

ATOL = 1e-5  # sums of up to 24 products of N(0, 1)
rows = pytest.mark.parametrize("rows", [16, 24, 10])  # the last does not divide into eight parts
batch = pytest.mark.parametrize("batch", [1, 3])


@rows
@batch
def test_a_product(batch: int, rows: int):
    x, kernel = normal(batch, rows), normal(rows, 7, seed=2)
    assert_forms_agree(product, product_file.textbook, x, kernel, atol=ATOL)
    np.testing.assert_allclose(product(x, kernel), np.asarray(x) @ np.asarray(kernel), rtol=0, atol=ATOL)


@rows
@batch
def test_a_product_with_the_transpose(batch: int, rows: int):
    y, kernel = normal(batch, 7), normal(rows, 7, seed=2)
    assert_forms_agree(times_transposed, transposed_file.textbook, y, kernel, atol=ATOL)
    np.testing.assert_allclose(times_transposed(y, kernel), np.asarray(y) @ np.asarray(kernel).T, rtol=0, atol=ATOL)


def test_only_a_cpu_multiplies_by_parts_of_a_transposed_kernel():
    traced = jax.jit(times_transposed).trace(jnp.zeros((2, 6)), jnp.zeros((16, 6)))
    assert "batching_dims = [0] x [0]" in traced.lower(lowering_platforms=("cpu",)).as_text()
    assert "batching_dims" not in traced.lower(lowering_platforms=("cuda",)).as_text()
