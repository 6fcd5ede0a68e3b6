"""Products of few rows with a transposed matrix."""

from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float

from castream_jax.kernels.precision import precision

_PARTS = 8


def textbook(y: Float[Array, "b o"], kernel: Float[Array, "i o"]) -> Float[Array, "b i"]:
    """`y @ kernel.T`."""
    return jnp.einsum("bo,io->bi", y, kernel, precision=precision())


def on_cpu(y: Float[Array, "b o"], kernel: Float[Array, "i o"]) -> Float[Array, "b i"]:
    """A batch of products with parts of the kernel, where its rows divide into eight.

    XLA's CPU backend first copies all of a transposed operand: for 16 rows and 2048 x 2048 weights, that is nine tenths
    of the time. In parts, the product takes a fifth.
    """
    rows = kernel.shape[0]
    if rows % _PARTS:
        return textbook(y, kernel)
    parts = kernel.reshape(_PARTS, rows // _PARTS, -1)
    repeated = jnp.broadcast_to(y[None], (_PARTS, *y.shape))
    return jnp.einsum("pbo,pio->bpi", repeated, parts, precision=precision()).reshape(-1, rows)


def times_transposed(y: Float[Array, "b o"], kernel: Float[Array, "i o"]) -> Float[Array, "b i"]:
    """`y @ kernel.T` for few rows `y`."""
    return lax.platform_dependent(y, kernel, cpu=on_cpu, default=textbook)
