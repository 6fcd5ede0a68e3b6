"""Mixup and CutMix on the device: each image of a batch with the one before it, and their labels alike.

As torchvision's `v2.MixUp` and `v2.CutMix`, one of the two for each batch with equal odds, as the official code of
CA-Stream has it. The choice and its amounts are functions of (seed, step): a resumed training draws the same ones, and
so does one on another number of devices.
"""

from collections.abc import Callable

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key
import numpy as np

Pixels = Float[Array, "b h w 3"]
# (pixels in [0, 1], step) -> (mixed pixels, the share that an image has of its own)
Mix = Callable[[Pixels, Int[Array, ""]], tuple[Pixels, Float[Array, ""]]]


def make_mix(mixup: float, cutmix: float, seed: int) -> Mix | None:
    """The function that mixes a batch, None where nothing is to be mixed.

    Args:
        mixup, cutmix: parameter of the symmetric beta distribution of each (0.2 and 1.0 in the official code); 0: not
            this one.
        seed: of all that is drawn.
    """
    ways = [way(alpha) for way, alpha in ((_mixup, mixup), (_cutmix, cutmix)) if alpha]
    if not ways:
        return None

    def mix(pixels: Pixels, step: Int[Array, ""]) -> tuple[Pixels, Float[Array, ""]]:
        choice, amounts = jax.random.split(jax.random.fold_in(jax.random.key(seed), step))
        return lax.switch(jax.random.randint(choice, (), 0, len(ways)), ways, pixels, amounts)

    return mix


def mixed_labels(
    labels: Int[Array, " b"], others: Int[Array, " b"], share: Float[Array, " b"], *, num_classes: int
) -> Float[Array, "b k"]:
    """`share` of each label's one-hot vector, and the rest of the other's."""
    own, other = (jax.nn.one_hot(classes, num_classes) for classes in (labels, others))
    return share[:, None] * own + (1 - share[:, None]) * other


def before(rows: Array) -> Array:
    """Of each row, the one before it in the batch; of the first, the last."""
    return jnp.roll(rows, 1, axis=0)


def _mixup(alpha: float) -> Callable[[Pixels, Key[Array, ""]], tuple[Pixels, Float[Array, ""]]]:
    def mix(pixels: Pixels, key: Key[Array, ""]) -> tuple[Pixels, Float[Array, ""]]:
        share = jax.random.beta(key, alpha, alpha)
        return blend(pixels, share), share

    return mix


def _cutmix(alpha: float) -> Callable[[Pixels, Key[Array, ""]], tuple[Pixels, Float[Array, ""]]]:
    def mix(pixels: Pixels, key: Key[Array, ""]) -> tuple[Pixels, Float[Array, ""]]:
        height, width = pixels.shape[1:3]
        of_area, of_row, of_column = jax.random.split(key, 3)
        half = 0.5 * jnp.sqrt(1 - jax.random.beta(of_area, alpha, alpha))
        row = jax.random.randint(of_row, (), 0, height)
        column = jax.random.randint(of_column, (), 0, width)
        return paste(pixels, row, column, half)

    return mix


def blend(pixels: Pixels, share: Float[Array, ""]) -> Pixels:
    """`share` of each image and the rest of the one before it (Zhang et al., mixup, ICLR 2018)."""
    return share * pixels + (1 - share) * before(pixels)


def paste(
    pixels: Pixels, row: Int[Array, ""], column: Int[Array, ""], half: Float[Array, ""]
) -> tuple[Pixels, Float[Array, ""]]:
    """Each image with a rectangle of the one before it (Yun et al., CutMix, ICCV 2019).

    Args:
        pixels: of the batch.
        row, column: the rectangle's centre.
        half: half its sides, as fractions of the image's; what reaches beyond the image is cut off.

    Returns:
        The images, and which share of their pixels is their own.
    """
    height, width = pixels.shape[1:3]
    top, bottom = _ends(row, half, height)
    left, right = _ends(column, half, width)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    own = 1 - (bottom - top) * (right - left) / (height * width)
    return jnp.where(inside[None, :, :, None], before(pixels), pixels), own


def _ends(centre: Int[Array, ""], half: Float[Array, ""], length: int) -> tuple[Array, Array]:
    reach = (half * length).astype(jnp.int32)
    return jnp.maximum(centre - reach, 0), jnp.minimum(centre + reach, length)
