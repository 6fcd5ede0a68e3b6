"""Crops, flips, shifts and brightness on the device, as `augment` has them on the host.

What is drawn for an image is a function of (seed, epoch, record): a resumed training draws the same, and so does one on
another number of devices. Host and device draw from the same distributions, by different generators.

A crop is a matrix of weights for the columns and then one for the rows: Pillow's antialiased bilinear filter, in its
fixed-point arithmetic. Of the same part of the same image the pixels are Pillow's to the bit, up to Pillow 12. Pillow
13 begins with the rows of some images that are higher than wide: their values differ by up to one of 255 levels.
"""

from collections.abc import Callable, Mapping
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int32, Key, UInt8

Pixels = UInt8[Array, "b h w 3"]
Augment = Callable[[Mapping[str, Array]], Pixels]
# Top, left, bottom, right of each image's crop, in pixels; the last two lie outside.
Windows = Int[Array, "b 4"]

_PLACES, _SIZES = ("epoch", "index"), ("size", "placed")
INPUTS = (*_PLACES, *_SIZES)  # that may be in a batch beside its pixels

_TRIES = 10
_BITS = 22  # of Pillow's weights


def make_device_augment(data_config: Any, seed: int) -> Augment | None:
    """The function of a batch that crops, flips, shifts and brightens its images as `config.data` says.

    The batch has `pixels` [B, S, S, 3] and, of each image, `epoch` and `index`; for crops also `size` and `placed`,
    height and width of the original and of what it is, in the upper left of the square.

    Args:
        data_config: without `augment_on_device`, there is no function.
        seed: of all that is drawn.
    """
    if not data_config.augment_on_device:
        return None
    crop = crops_on_device(data_config)
    flip, padding, amount = data_config.flip, data_config.crop_padding, data_config.brightness

    def augment(batch: Mapping[str, Array]) -> Pixels:
        pixels = batch["pixels"]
        key = jax.random.key(seed, impl="threefry2x32")
        keys = jax.vmap(lambda *place: _keys(key, *place))(batch["epoch"], batch["index"])
        if crop:
            windows = jax.vmap(draw_window)(keys[:, 0], batch["size"])
            pixels = crop_and_resize(pixels, scale_windows(windows, batch["size"], batch["placed"]), crop)
        if flip:
            mirrored = jax.vmap(lambda key: jax.random.uniform(key) < 0.5)(keys[:, 1])
            pixels = jnp.where(mirrored[:, None, None, None], pixels[:, :, ::-1], pixels)
        if padding:
            draw = jax.vmap(lambda key: jax.random.randint(key, (2,), -padding, padding + 1))
            pixels = jax.vmap(_shift)(pixels, draw(keys[:, 2]))
        if amount:
            low = max(0.0, 1 - amount)
            draw = jax.vmap(lambda key: jax.random.uniform(key, minval=low, maxval=1 + amount))
            pixels = brighten(pixels, draw(keys[:, 3]))
        return pixels

    return augment


def augment_inputs(data_config: Any) -> tuple[str, ...]:
    """What the function of `make_device_augment` reads of a batch beside its pixels."""
    if not data_config.augment_on_device:
        return ()
    return INPUTS if crops_on_device(data_config) else _PLACES


def crops_on_device(data_config: Any) -> int:
    """The side of the device's random resized crops; 0 if there are none."""
    crops = data_config.augment_on_device and data_config.random_resized_crop and data_config.resize != "none"
    return data_config.image_size if crops else 0


def _keys(key: Key[Array, ""], epoch: Int[Array, ""], index: Int[Array, ""]) -> Key[Array, "4"]:
    return jax.random.split(jax.random.fold_in(jax.random.fold_in(key, epoch), index), 4)


def draw_window(
    key: Key[Array, ""],
    size: Int[Array, "2"],
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Int[Array, "4"]:
    """Top, left, bottom and right of the part that `RandomResizedCrop` takes of an image of `size` (height, width)."""
    height, width = size.astype(jnp.float32)
    areas, ratios, tops, lefts = jax.random.uniform(key, (4, _TRIES))
    area = height * width * (scale[0] + (scale[1] - scale[0]) * areas)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = jnp.exp(low + (high - low) * ratios)
    crop_height, crop_width = jnp.round(jnp.sqrt(area / aspect)), jnp.round(jnp.sqrt(area * aspect))
    fits = (crop_height > 0) & (crop_height <= height) & (crop_width > 0) & (crop_width <= width)
    # The products may round up to the count itself, which is one too many.
    top = jnp.minimum(jnp.floor(tops * (height - crop_height + 1)), height - crop_height)
    left = jnp.minimum(jnp.floor(lefts * (width - crop_width + 1)), width - crop_width)
    drawn = jnp.stack([top, left, top + crop_height, left + crop_width])[:, jnp.argmax(fits)]

    # None fits: the largest central part with an allowed ratio.
    central_height = jnp.where(width < ratio[0] * height, jnp.round(width / ratio[0]), height)
    central_width = jnp.where(width > ratio[1] * height, jnp.round(height * ratio[1]), width)
    top, left = (height - central_height) // 2, (width - central_width) // 2
    central = jnp.stack([top, left, top + central_height, left + central_width])
    return jnp.where(fits.any(), drawn, central).astype(jnp.int32)


def scale_windows(windows: Windows, sizes: Int[Array, "b 2"], placed: Int[Array, "b 2"]) -> Windows:
    """Parts of originals of `sizes` in images that were brought to those `placed`, in whole pixels."""
    corners = jnp.round(windows * jnp.tile(placed / sizes, (1, 2))).astype(jnp.int32)
    begin = jnp.minimum(corners[:, :2], placed - 1)
    return jnp.concatenate([begin, jnp.maximum(corners[:, 2:], begin + 1)], axis=1)


def crop_and_resize(pixels: Pixels, windows: Windows, size: int) -> UInt8[Array, "b {size} {size} 3"]:
    """`image.crop(window).resize((size, size), BILINEAR)` of Pillow, columns first."""
    tops, lefts, bottoms, rights = windows.T
    columns = jax.vmap(lambda begin, end: _weights(begin, end, pixels.shape[2], size))(lefts, rights)
    rows = jax.vmap(lambda begin, end: _weights(begin, end, pixels.shape[1], size))(tops, bottoms)
    pixels = _weighted("bhwc,bvw->bhvc", pixels, columns)
    return _weighted("bhwc,bvh->bvwc", pixels, rows)


def _weights(begin: Int[Array, ""], end: Int[Array, ""], length: int, size: int) -> Int32[Array, "{size} {length}"]:
    """What each of `length` pixels adds to each of `size`, of 2^22; those from `begin` to `end` alone count.

    In Pillow's filter the weight falls linearly with the distance of centres, over one pixel of the coarser side. As
    multiples of 1 / (2 size) all distances are integers, and so are the shares that are rounded to 2^-22.
    """
    width = end - begin
    places, wanted = jnp.arange(length) - begin, jnp.arange(size)
    distance = jnp.abs((2 * wanted + 1)[:, None] * width - size * (2 * places + 1)[None])
    share = jnp.maximum(2 * jnp.maximum(width, size) - distance, 0)
    share = jnp.where(((places >= 0) & (places < width))[None], share, 0)
    total = share.sum(1, keepdims=True)
    # Nearly right in float32; the remainder, in integers that may wrap around, says by how much it is not.
    weights = jnp.round(share.astype(jnp.float32) / total * 2**_BITS).astype(jnp.int32)
    remainder = (share << _BITS) - weights * total
    return weights + jnp.floor((2 * remainder + total) / (2 * total)).astype(jnp.int32)


def _weighted(axes: str, pixels: Pixels, weights: Int32[Array, "b v n"]) -> UInt8[Array, "..."]:
    """Sums of pixels times weights, rounded to 8 bits.

    Eight bits are exact in bfloat16, and so are the sums of their products in float32: three products, of the upper,
    the middle and the lower bits of the weights, run at a matrix unit's full speed and make the sum of integers that
    Pillow makes, in whatever order they are added.
    """
    values = pixels.astype(jnp.bfloat16)
    total = jnp.int32(1 << (_BITS - 1))
    for lowest, bits in ((15, 8), (7, 8), (0, 7)):
        part = ((weights >> lowest) & ((1 << bits) - 1)).astype(jnp.bfloat16)
        sums = jnp.einsum(axes, values, part, preferred_element_type=jnp.float32)
        total += sums.astype(jnp.int32) << lowest
    return jnp.clip(total >> _BITS, 0, 255).astype(jnp.uint8)


def _shift(pixels: UInt8[Array, "h w 3"], corner: Int[Array, "2"]) -> UInt8[Array, "h w 3"]:
    """The image from a corner on, and black where that lies outside."""
    for axis, begin in enumerate(corner):
        length = pixels.shape[axis]
        places = jnp.arange(length) + begin
        inside = jnp.expand_dims((places >= 0) & (places < length), tuple(i for i in range(3) if i != axis))
        pixels = jnp.where(inside, jnp.take(pixels, jnp.clip(places, 0, length - 1), axis=axis), 0)
    return pixels


def brighten(pixels: Pixels, factors: Float[Array, " b"]) -> Pixels:
    """Values times each image's factor, cut off, not rounded, as Pillow does it."""
    return jnp.minimum(jnp.floor(pixels * factors[:, None, None, None]), 255).astype(jnp.uint8)
