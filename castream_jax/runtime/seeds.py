"""Keys from a seed, without a program that makes them."""

from flax import nnx
import jax
import numpy as np


def seeded_rngs(seed: int) -> nnx.Rngs:
    """`nnx.Rngs(seed)`, whose key JAX would compile two programs for: its 32 lower bits, behind 32 zeros."""
    if jax.config.jax_default_prng_impl != "threefry2x32" or jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        return nnx.Rngs(seed)
    words = np.array([0, seed & 0xFFFFFFFF], np.uint32)
    return nnx.Rngs(jax.random.wrap_key_data(jax.device_put(words)))
