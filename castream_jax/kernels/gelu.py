"""GELU, `x Phi(x)` with the normal distribution function Phi, exact."""

import jax
from jax import lax
from jaxtyping import Array, Float
import numpy as np


def textbook(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`jax.nn`'s, by the complementary error function."""
    return jax.nn.gelu(x, approximate=False)


def on_cpu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """By the error function, as in PyTorch: XLA's CPU backend computes it faster than its complement."""
    return 0.5 * x * (1 + lax.erf(x * np.sqrt(0.5).astype(x.dtype)))


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x Phi(x)`, not its approximation by tanh."""
    return lax.platform_dependent(x, cpu=on_cpu, default=textbook)
