"""Masks over images: enlarged by small matrix products, multiplied in one space or the other."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32
import numpy as np

from castream_jax.backbones import Backbone
from castream_jax.backbones.backbone import AnyArray
from castream_jax.protocol import Protocol


def interpolation_matrix(small: int, large: int, *, align_corners: bool) -> Float32[np.ndarray, "{large} {small}"]:
    """`U` such that `U x` is `x` enlarged linearly from `small` to `large` values.

    Args:
        small: number of given values.
        large: number of wanted values.
        align_corners: whether the first and last values stay at the ends; else each value has a half-pixel centre
            and the ends repeat it.
    """
    if align_corners:
        places = np.arange(large) * ((small - 1) / max(large - 1, 1))
    else:
        places = np.clip((np.arange(large) + 0.5) * small / large - 0.5, 0, small - 1)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(small)[None])).astype(np.float32)


def enlarge(
    rows: Float[AnyArray, "*n height h"],
    maps: Float[Array, "n h w"],
    columns: Float[AnyArray, "*n width w"],
) -> Float[Array, "n height width"]:
    """`rows` @ map @ `columns`ᵀ for every map: separable interpolation as two small matrix products."""
    rows, columns = jnp.asarray(rows), jnp.asarray(columns)
    precision = jax.lax.Precision.HIGHEST
    tall = jnp.einsum("nyh,nhw->nyw" if rows.ndim == 3 else "yh,nhw->nyw", rows, maps, precision=precision)
    return jnp.einsum("nyw,nxw->nyx" if columns.ndim == 3 else "nyw,xw->nyx", tall, columns, precision=precision)


def masked(
    backbone: Backbone,
    pixels: Float[Array, "b height width 3"],
    masks: Float[Array, "b height width"],
    protocol: Protocol,
) -> Float[Array, "b height width 3"]:
    """Pixels whose product with the masks, in `protocol.masked_space`, the trunk then sees."""
    if protocol.masked_space == "pixels":
        return pixels * masks[..., None]
    return backbone.denormalise(backbone.normalise(pixels) * masks[..., None])
