"""Insertion and deletion (Petsiuk et al., RISE, 2018): class probability while pixels appear or vanish by saliency."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np
import scipy.ndimage


def pixel_ranks(saliency: Float[Array, "b h w"]) -> Int[Array, "b h w"]:
    """Place of each pixel when pixels are ordered by falling saliency.

    Of equal saliencies the pixel later in reading order comes first, which is what reversing an ascending sort does
    (RISE, the official code). One stable sort; a step of insertion or deletion is then a threshold on the rank.
    """
    flat = saliency.reshape(saliency.shape[0], -1)
    falling_places = jnp.arange(flat.shape[1], dtype=jnp.int32)[::-1]

    def invert(rising: Int[Array, " pixels"]) -> Int[Array, " pixels"]:
        return jnp.zeros_like(rising).at[rising].set(falling_places, unique_indices=True)

    # vmap, not indices over the batch: devices then sort and scatter their own images, without gathering them all.
    return jax.vmap(invert)(jnp.argsort(flat, axis=1, stable=True).astype(jnp.int32)).reshape(saliency.shape)


def num_steps(height: int, rows_per_step: int) -> int:
    """Steps that move all pixels, `rows_per_step` rows' worth at a time: 28 at 224 x 224 with 8 rows."""
    return -(-height // rows_per_step)


def blur_kernel(size: int, sigma: float) -> Float[np.ndarray, "size size"]:
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


def area_under_curve(curve: Float[Array, "*b steps"]) -> Float[Array, "*b"]:
    """Trapezoid area over equally spaced steps, the axis scaled to [0, 1]."""
    inner = curve.sum(-1) - (curve[..., 0] + curve[..., -1]) / 2
    return inner / (curve.shape[-1] - 1)
