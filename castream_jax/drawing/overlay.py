"""A saliency map in colours, and laid over its image."""

from jaxtyping import Float, UInt8
import matplotlib as mpl
import numpy as np
from PIL import Image

# Perceptually uniform, unlike jet: equal steps of saliency look equal, and a grey print keeps the order.
COLORMAP = "inferno"
OPACITY = 0.6


def overlay(pixels: UInt8[np.ndarray, "H W 3"], saliency: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "H W 3"]:
    """Lays a saliency map in [0, 1] over its image, as the report's page does with CSS.

    The map is brought to image size bilinearly with half-pixel centres, as when the metrics mask with it.
    """
    height, width = pixels.shape[:2]
    # The photograph in grey, so that colour always means saliency.
    grey = np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float64)[..., None] / 255
    return np.rint(255 * ((1 - OPACITY) * grey + OPACITY * colored(saliency, height, width))).astype(np.uint8)


def colored(saliency: Float[np.ndarray, "h w"], height: int, width: int) -> Float[np.ndarray, "{height} {width} 3"]:
    """A map in [0, 1] enlarged bilinearly with half-pixel centres, then in colours, in [0, 1]."""
    enlarged = Image.fromarray(saliency.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    return mpl.colormaps[COLORMAP](np.asarray(enlarged).clip(0, 1))[..., :3]


def css_scale() -> list[str]:
    """CSS colours of the scale from 0 to 1, in equal steps."""
    colors = mpl.colormaps[COLORMAP](np.linspace(0, 1, 9), bytes=True)[:, :3]
    return [f"rgb({r} {g} {b})" for r, g, b in colors.tolist()]
