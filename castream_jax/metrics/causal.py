"""Insertion and deletion (Petsiuk et al., RISE, 2018): class probability while pixels appear or vanish by saliency."""

from typing import Literal

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int
import numpy as np
import scipy.ndimage


def pixel_ranks(
    saliency: Float[Array, "b h w"], ties: Literal["last_first", "first_first"] = "last_first"
) -> Int[Array, "b h w"]:
    """Place of each pixel when pixels are ordered by falling saliency.

    Of equal saliencies the pixel later in reading order comes first, which is what reversing an ascending sort does
    (RISE, the official code), or the earlier one. A step of insertion or deletion is then a threshold on the rank.

    Packs value and index of each pixel into one int64 key and sorts once: four times faster than `argsort` on a CPU,
    where that took a tenth of the time of the trunk's passes over 32 x 32 pixels.
    """
    flat = saliency.reshape(saliency.shape[0], -1)
    bits = lax.bitcast_convert_type(flat.astype(jnp.float32) + 0.0, jnp.int32)  # + 0: no -0
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


def pixels_moved(height: int, width: int, rows_per_step: int, num_steps: int = 0) -> Int[np.ndarray, " points"]:
    """How many pixels have been inserted or deleted after each step: 0, …, all of them.

    A step moves `rows_per_step` rows' worth of pixels (28 steps at 224 x 224 with 8 rows) or, if `num_steps` is given,
    the `num_steps`-th part of all, rounded up; the last step moves what remains.
    """
    everything = height * width
    per_step = -(-everything // num_steps) if num_steps else rows_per_step * width
    return np.append(np.arange(0, everything, per_step), everything)


def blur_kernel(size: int, sigma: float) -> Float32[np.ndarray, "{size} {size}"]:
    """A Dirac filtered by a Gaussian reflected at the kernel's border, as RISE and the official code make it."""
    dirac = np.zeros((size, size))
    dirac[size // 2, size // 2] = 1
    return scipy.ndimage.gaussian_filter(dirac, sigma).astype(np.float32)


def blur(inputs: Float[Array, "b h w 3"], kernel: Float[np.ndarray, "k k"]) -> Float[Array, "b h w 3"]:
    """Each channel convolved by `kernel`, zeros outside the image.

    The kernel is symmetric, so the sum over shifts below is the convolution; it is also faster than a depthwise
    convolution on a CPU.
    """
    size, radius = kernel.shape[0], kernel.shape[0] // 2
    height, width = inputs.shape[1:3]
    padded = jnp.pad(inputs, ((0, 0), (radius, radius), (radius, radius), (0, 0)))
    shifted = (float(kernel[i, j]) * padded[:, i : i + height, j : j + width] for i in range(size) for j in range(size))
    return sum(shifted, start=jnp.zeros_like(inputs))


def area_under_curve(curve: Float[Array, "*b points"], at: Float[np.ndarray, " points"]) -> Float[Array, "*b"]:
    """Trapezoid area over the points `at` of [0, 1], in rising order."""
    widths = np.diff(at)
    weights = (np.append(widths, 0) + np.append(0, widths)) / 2
    return jnp.einsum("...s,s->...", curve, jnp.asarray(weights, curve.dtype), precision=jax.lax.Precision.HIGHEST)
