"""Eigen-CAM (Muhammad and Yeasin, 2020): what varies most over the positions of the features, whatever the class."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from castream_jax.attribution.inputs import Inputs
from castream_jax.attribution.methods import register_method


@register_method("eigencam", paper="Muhammad and Yeasin, IJCNN 2020, arXiv:2008.00299")
def eigencam(inputs: Inputs) -> dict[str, Float[Array, "b h w"]]:
    """`relu(X v)`, X the features of all positions minus their mean, v the first right singular vector of X.

    Neither head nor class is looked at: all heads have the same map. Features are centred as in pytorch-grad-cam. The
    sign of v, which the decomposition leaves open, is such that the largest value in size is positive.
    """
    return dict.fromkeys(inputs.model.heads, jax.nn.relu(first_component(inputs.features)))


def first_component(features: Float[Array, "b h w d"]) -> Float[Array, "b h w"]:
    """Of each image, its positions projected onto the first principal component of its features."""
    batch, height, width, channels = features.shape
    x = features.reshape(batch, height * width, channels)
    x = x - x.mean(axis=1, keepdims=True)
    # X v = u s, from the smaller one of the two products of X with itself.
    if height * width <= channels:
        values, vectors = jnp.linalg.eigh(jnp.einsum("bpd,bqd->bpq", x, x, precision=jax.lax.Precision.HIGHEST))
        projected = vectors[..., -1] * jnp.sqrt(jnp.maximum(values[:, -1:], 0))
    else:
        _, vectors = jnp.linalg.eigh(jnp.einsum("bpd,bpe->bde", x, x, precision=jax.lax.Precision.HIGHEST))
        projected = jnp.einsum("bpd,bd->bp", x, vectors[..., -1], precision=jax.lax.Precision.HIGHEST)
    negative = -projected.min(axis=1) > projected.max(axis=1)
    return jnp.where(negative[:, None], -projected, projected).reshape(batch, height, width)
