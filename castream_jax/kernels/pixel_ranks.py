"""The order of pixels by saliency."""

import functools
from typing import Literal

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Ties = Literal["last_first", "first_first"]


def textbook(saliency: Float[Array, "b h w"], ties: Ties) -> Int[Array, "b h w"]:
    """`argsort`, which is stable, and its inverse. Rising order reversed has the last of equal saliencies first."""
    flat = saliency.reshape(saliency.shape[0], -1)
    order = jnp.argsort(flat)[:, ::-1] if ties == "last_first" else jnp.argsort(flat, descending=True)
    return jnp.argsort(order).astype(jnp.int32).reshape(saliency.shape)


def on_cpu(saliency: Float[Array, "b h w"], ties: Ties) -> Int[Array, "b h w"]:
    """Packs value and index of each pixel into one int64 key and sorts once: four times faster than `argsort`.

    `argsort` takes a tenth of the time of the trunk's passes over 32 x 32 pixels. TPUs emulate int64.
    """
    flat = saliency.reshape(saliency.shape[0], -1)
    bits = lax.bitcast_convert_type(flat.astype(jnp.float32), jnp.int32)
    bits = jnp.where(bits == jnp.iinfo(jnp.int32).min, 0, bits)  # -0 equals 0; XLA leaves out an addition of 0
    rising = jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # integers in the order of the floats
    place = lax.broadcasted_iota(jnp.int32, flat.shape, 1)
    backwards = flat.shape[1] - 1 - place
    with jax.enable_x64(True):  # int64 within these lines alone
        key = (~rising).astype(jnp.int64) << 32 | (backwards if ties == "last_first" else place).astype(jnp.int64)
        order = (lax.sort(key, dimension=1, is_stable=False) & 0xFFFFFFFF).astype(jnp.int32)
    order = flat.shape[1] - 1 - order if ties == "last_first" else order

    def invert(order: Int[Array, " pixels"]) -> Int[Array, " pixels"]:
        return jnp.zeros_like(order).at[order].set(jnp.arange(len(order), dtype=jnp.int32), unique_indices=True)

    # vmap, not indices over the batch: devices then sort and scatter their own images, without gathering them all.
    return jax.vmap(invert)(order).reshape(saliency.shape)


def pixel_ranks(saliency: Float[Array, "b h w"], ties: Ties = "last_first") -> Int[Array, "b h w"]:
    """Place of each pixel when pixels are ordered by falling saliency.

    Of equal saliencies the pixel later in reading order comes first, which is what reversing an ascending sort does
    (RISE, the official code), or the earlier one. A step of insertion or deletion is then a threshold on the rank.
    """
    return lax.platform_dependent(
        saliency, cpu=functools.partial(on_cpu, ties=ties), default=functools.partial(textbook, ties=ties)
    )
