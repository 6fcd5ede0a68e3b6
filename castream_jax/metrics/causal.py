"""Insertion and deletion (Petsiuk et al., RISE, 2018): class probability while pixels appear or vanish by saliency."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int
import numpy as np
import scipy.ndimage

from castream_jax.kernels.convolution import convolution


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

    The kernel is symmetric, so the correlation that deep learning calls a convolution is one.
    """
    per_channel = jnp.asarray(np.repeat(kernel[..., None, None], 3, axis=3))
    return convolution(inputs, per_channel, padding=len(kernel) // 2, groups=3)


def area_under_curve(curve: Float[Array, "*b points"], at: Float[np.ndarray, " points"]) -> Float[Array, "*b"]:
    """Trapezoid area over the points `at` of [0, 1], in rising order."""
    widths = np.diff(at)
    weights = (np.append(widths, 0) + np.append(0, widths)) / 2
    return jnp.einsum("...s,s->...", curve, jnp.asarray(weights, curve.dtype), precision=jax.lax.Precision.HIGHEST)
