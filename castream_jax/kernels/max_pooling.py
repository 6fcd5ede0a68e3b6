"""Max-pooling of torchvision's ResNet stem."""

import functools

from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float

from castream_jax.kernels.computed_once import computed_once
from castream_jax.kernels.shifted_images import shifted_images

_PADDING = ((0, 0), (1, 1), (1, 1), (0, 0))


def textbook(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """`lax.reduce_window`; the first maximum of a window receives its derivative."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), _PADDING)


def on_cpu(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """The maximum of nine shifted images: 1.6 times as fast; equal maxima of a window share its derivative."""
    x = jnp.pad(x, _PADDING, constant_values=-jnp.inf)
    return computed_once(functools.reduce(jnp.maximum, shifted_images(x, 3, 2)))


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """3 x 3 maximum, stride 2, one pixel of padding."""
    return lax.platform_dependent(x, cpu=on_cpu, default=textbook)
