"""From raw scores over positions to a saliency map, and from a map to the image's size."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from castream_jax.backbones.backbone import AnyArray


def min_max(scores: Float[AnyArray, "b h w"]) -> Float[Array, "b h w"]:
    """Each map scaled to [0, 1]; a constant map carries no information and becomes all zeros.

    One that is not finite becomes NaN.
    """
    low = scores.min((1, 2), keepdims=True)
    span = scores.max((1, 2), keepdims=True) - low
    # A division compiled as a product with the reciprocal may round to just above 1.
    return jnp.where(span <= 0, 0, jnp.clip((scores - low) / jnp.where(span <= 0, 1, span), 0, 1))


def upsample(maps: Float[Array, "b h w"], height: int, width: int) -> Float[Array, "b {height} {width}"]:
    """Bilinear with half-pixel centres (`align_corners=False`): no shift against the image."""
    return jax.image.resize(maps, (maps.shape[0], height, width), "bilinear", antialias=False)
