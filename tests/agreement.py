"""Two forms of one operation: the same values, and the same derivatives in a random direction."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np


def normal(*shape: int, seed: int = 0) -> jax.Array:
    """Float32 numbers, N(0, 1)."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def value_and_derivatives(function: Callable[..., jax.Array], *arguments: jax.Array) -> Sequence[jax.Array]:
    """`function(*arguments)`, and the pull-back of the same random cotangent to every argument; compiled."""

    @jax.jit
    def both(*arguments: jax.Array) -> Sequence[jax.Array]:
        value, pull_back = jax.vjp(function, *arguments)
        return value, *pull_back(normal(*value.shape, seed=1).astype(value.dtype))

    return both(*arguments)


def assert_forms_agree(
    form: Callable[..., jax.Array], textbook: Callable[..., jax.Array], *arguments: jax.Array, atol: float
) -> None:
    """Values and derivatives are equal up to `atol`."""
    found, expected = (value_and_derivatives(function, *arguments) for function in (form, textbook))
    for result, reference in zip(found, expected, strict=True):
        assert result.dtype == reference.dtype
        np.testing.assert_allclose(result, reference, rtol=0, atol=atol)
