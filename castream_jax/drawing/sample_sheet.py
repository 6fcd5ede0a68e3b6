"""A sample of a dataset on one sheet: images squashed to squares, with their boxes and the names of their classes."""

from collections.abc import Iterable
import os
from pathlib import Path

from jaxtyping import Float, UInt8
import numpy as np
from PIL import Image, ImageDraw

from castream_jax.drawing.contact_sheet import Sheet, Tile, TileRow, draw_sheet

_SIDE = 128  # of one image, in pixels


def write_sample(
    examples: Iterable[tuple[UInt8[np.ndarray, "_h _w 3"], str, Float[np.ndarray, "_n 4"]]],
    path: str | os.PathLike[str],
) -> int:
    """Writes the sheet as a PNG, whose folder is made; returns the number of images on it.

    Args:
        examples: image, caption, and boxes x0, y0, x1, y1 in pixels; one without an area is left out.
        path: of the file.
    """
    tiles = [Tile(_with_boxes(pixels, boxes), caption) for pixels, caption, boxes in examples]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    draw_sheet(Sheet("", [], [TileRow("", tiles)]), (_SIDE, _SIDE), _SIDE).save(path, "PNG")
    return len(tiles)


def _with_boxes(pixels: UInt8[np.ndarray, "h w 3"], boxes: Float[np.ndarray, "n 4"]) -> Image.Image:
    height, width = pixels.shape[:2]
    squashed = Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(squashed)
    for x0, y0, x1, y1 in (boxes * (np.array([1 / width, 1 / height] * 2) * _SIDE)).tolist():
        if x1 > x0 and y1 > y0:
            draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline="red")
    return squashed
