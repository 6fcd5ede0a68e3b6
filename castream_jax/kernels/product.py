"""Products of few rows, one per image, with a matrix."""

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float

from castream_jax.kernels import times_transposed
from castream_jax.kernels.precision import precision


def textbook(x: Float[Array, "b i"], kernel: Float[Array, "i o"]) -> Float[Array, "b o"]:
    """`x @ kernel`."""
    return jnp.matmul(x, kernel, precision=precision())


@jax.custom_vjp
def on_cpu(x: Float[Array, "b i"], kernel: Float[Array, "i o"]) -> Float[Array, "b o"]:
    """The same with its derivative written out, a product with the transposed kernel in parts."""
    return textbook(x, kernel)


def _backward(residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    of_kernel = jnp.einsum("bi,bo->io", x, cotangent, precision=precision())
    return times_transposed.on_cpu(cotangent, kernel), of_kernel


on_cpu.defvjp(lambda x, kernel: (on_cpu(x, kernel), (x, kernel)), _backward)


def product(x: Float[Array, "b i"], kernel: Float[Array, "i o"]) -> Float[Array, "b o"]:
    """`x @ kernel` for few rows `x`."""
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=textbook)
