"""JPEGs to arrays by libjpeg-turbo itself: Pillow's pixels, without the image and the copy that Pillow makes first.

simplejpeg brings libjpeg-turbo, as Pillow's own wheels do. It is asked for arrays alone: an image of Pillow that is
made of an array costs what it saves.
"""

from jaxtyping import UInt8
import numpy as np

try:
    import simplejpeg
except ImportError:  # a machine without it reads the same pixels, by Pillow
    simplejpeg = None

_SPACES = ("YCbCr", "RGB", "Gray")  # of CMYK, libjpeg-turbo and Pillow make other RGB


def decode_jpeg(content: bytes, out: UInt8[np.ndarray, "h w 3"] | None = None) -> UInt8[np.ndarray, "_h _w 3"] | None:
    """The pixels that Pillow's `convert("RGB")` gives; None of what is left to Pillow: CMYK, and what is not whole.

    Pillow reads past many faults of a damaged file, and says what is wrong with others; here any fault gives None.

    Args:
        content: of a file.
        out: takes the pixels if it has their shape, and is then what is given back.
    """
    if simplejpeg is None:
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(content)
        if space not in _SPACES:
            return None
        if out is None or out.shape != (height, width, 3):
            return simplejpeg.decode_jpeg(content, "RGB")
        simplejpeg.decode_jpeg(content, "RGB", buffer=out)
        return out
    except (ValueError, MemoryError):
        return None
