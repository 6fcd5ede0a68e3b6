"""Recognition metrics."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def correct(logits: Float[Array, "b k"], labels: Int[Array, " b"]) -> Bool[Array, " b"]:
    """Whether the largest logit is the label's; accuracy is the mean."""
    return jnp.argmax(logits, axis=-1) == labels
