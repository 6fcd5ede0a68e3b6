"""Maps that look at neither model nor class: what a method has to beat.

All heads are given the same one, at the resolution of the target features, so that heads are compared on equal masks.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from castream_jax.attribution.inputs import Inputs
from castream_jax.attribution.methods import register_method


@register_method("random", finished=True)
def random(inputs: Inputs) -> dict[str, Float[Array, "b h w"]]:
    """Uniform in [0, 1) and independent over positions, a function of the protocol's seed and the image alone.

    The generator is seeded by the image's 8-bit values: an image has the same map in any batch, order of images,
    number of devices and label.
    """
    key = jax.random.key(inputs.protocol.seed)
    shape = inputs.features.shape[1:3]
    maps = jax.vmap(lambda content: jax.random.uniform(jax.random.fold_in(key, content), shape))(
        _content_hash(inputs.pixels, key)
    )
    return dict.fromkeys(inputs.model.heads, maps)


@register_method("centre", finished=True)
def centre(inputs: Inputs) -> dict[str, Float[Array, "b h w"]]:
    """A Gaussian at the image's centre, sigma a quarter of the side in each direction, scaled to a maximum of 1.

    So the middle of an edge has 0.14 and a corner 0.02: photographs have their object in the middle. Where the features
    have one or two positions in a direction, all of them as far from the centre, the map has four.
    """
    batch = len(inputs.features)
    height, width = (side if side > 2 else 4 for side in inputs.features.shape[1:3])
    y, x = ((jnp.arange(side) + 0.5) / side - 0.5 for side in (height, width))
    gaussian = jnp.exp(-(y[:, None] ** 2 + x[None] ** 2) / (2 * 0.25**2))
    gaussian = jnp.broadcast_to((gaussian / gaussian.max())[None], (batch, height, width))
    return dict.fromkeys(inputs.model.heads, gaussian)


@register_method("ones", finished=True)
def ones(inputs: Inputs) -> dict[str, Float[Array, "b h w"]]:
    """One everywhere: masking by it changes nothing. `inverted-ones` masks everything.

    AD and AG are 0 up to rounding; AI, which counts the smallest increase as a whole one, counts the rounding.
    """
    return dict.fromkeys(inputs.model.heads, jnp.ones(inputs.features.shape[:3]))


def _content_hash(pixels: Float[Array, "b height width 3"], key: Array) -> UInt32[Array, " b"]:
    """Sum of the 8-bit values times odd random integers, modulo 2^32: exact in any order of summation."""
    values = jnp.round(255 * pixels).astype(jnp.int32).astype(jnp.uint32)  # whichever way they were divided by 255
    factors = jax.random.bits(key, pixels.shape[1:], jnp.uint32) | 1
    return (values * factors[None]).sum((1, 2, 3), dtype=jnp.uint32)
