"""Recognition metrics of images with one label: accuracy."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from castream_jax.backbones.backbone import AnyArray


def correct(logits: Float[AnyArray, "b k"], labels: Int[AnyArray, " b"]) -> Bool[Array, " b"]:
    """Whether the largest logit is the label's; accuracy is the mean."""
    return jnp.argmax(logits, axis=-1) == labels


def top_k_correct(logits: Float[AnyArray, "b k"], labels: Int[AnyArray, " b"], k: int = 5) -> Bool[Array, " b"]:
    """Whether the label's logit is among the `k` largest; of equal logits the lower class comes first, as in `correct`.

    With no more than `k` classes, every label is.
    """
    return (jax.lax.top_k(logits, min(k, logits.shape[-1]))[1] == labels[:, None]).any(-1)
