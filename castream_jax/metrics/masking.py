"""Average drop, average gain, average increase: what masking an image by its map does to its class probability.

`p` is the probability of the class on the image, `o` on image x map; all functions are per image, as fractions.
NaN propagates.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def average_drop(p: Float[Array, " b"], o: Float[Array, " b"]) -> Float[Array, " b"]:
    """`AD = max(0, p - o) / p` (Chattopadhay et al., 2018); 0 where p = 0. Lower is better."""
    return _ratio(jnp.maximum(0, p - o), p)


def average_gain(p: Float[Array, " b"], o: Float[Array, " b"]) -> Float[Array, " b"]:
    """`AG = max(0, o - p) / (1 - p)` (Zhang et al., 2023); 0 where p = 1. Higher is better."""
    return _ratio(jnp.maximum(0, o - p), 1 - p)


def average_increase(p: Float[Array, " b"], o: Float[Array, " b"]) -> Float[Array, " b"]:
    """`AI = [o > p]` (Chattopadhay et al., 2018). Higher is better."""
    return jnp.where(jnp.isnan(o - p), jnp.nan, (o > p).astype(p.dtype))


def _ratio(numerator: Float[Array, " b"], denominator: Float[Array, " b"]) -> Float[Array, " b"]:
    return jnp.where(denominator <= 0, 0, numerator / jnp.where(denominator <= 0, 1, denominator))
