"""A figure for print: a row for each image, with maps laid over it."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
import numpy as np

from castream_jax.drawing.overlay import overlay
from castream_jax.drawing.style import PIXELS_PER_INCH, style


class MapColumn(NamedTuple):
    """A heading, and a map in [0, 1] for every row."""

    title: str
    maps: Float[np.ndarray, "images _h _w"]


def overlay_grid(
    pixels: UInt8[np.ndarray, "images h w 3"], names: Sequence[str], columns: Sequence[MapColumn]
) -> Figure:
    """One row per image: the image beside its name, then each map over it."""
    titles = ["Input image", *(column.title for column in columns)]
    with style():
        size = (1.2 * len(titles), 1.3 * len(pixels) + 0.2)
        figure = Figure(figsize=size, dpi=PIXELS_PER_INCH, layout="constrained")
        axes = figure.subplots(len(pixels), len(titles), squeeze=False)
        for row, (image, name) in enumerate(zip(pixels, names, strict=True)):
            shown = [image, *(overlay(image, column.maps[row]) for column in columns)]
            for ax, panel in zip(axes[row], shown, strict=True):
                ax.imshow(panel)
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
            axes[row][0].set_ylabel(name)
        for ax, title in zip(axes[0], titles, strict=True):
            ax.set_title(title)
    return figure
