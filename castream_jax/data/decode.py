"""Image files to RGB of 8 bits, as Pillow and torchvision do it; what cannot be decoded is refused by name.

Pixels of more than 8 bits are scaled where their range is known: 16-bit integers from 65535 to 255, floating point from
1 to 255. Where it is not (32-bit integers, floating point beyond [0, 1]), the image is refused: Pillow's `convert` cuts
it off at 255, which makes it all white or all black.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import functools
import io
from pathlib import Path
import re
import stat
from typing import NamedTuple
import warnings

from jaxtyping import Float, UInt8
import numpy as np
from PIL import Image, UnidentifiedImageError

from castream_jax.data.jpeg import decode_jpeg

# Of the formats that hold one picture and that Pillow reads without another program.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".png", ".apng",
    ".webp", ".avif", ".avifs", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm",
    ".tga", ".icb", ".vda", ".vst", ".qoi", ".sgi", ".rgb", ".rgba", ".bw", ".ras", ".im", ".pcx", ".dcx", ".psd",
    ".dds", ".ico", ".icns", ".cur", ".xbm", ".xpm", ".msp", ".pcd", ".pxr", ".blp", ".ftc", ".ftu", ".gbr",
)  # fmt: skip

_ORIENTATION = 0x0112  # EXIF tag: how a picture must be turned to stand upright
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = 5  # from this orientation on, height and width change places
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_SIGNED = 2  # a sample format
_NO_RANGE = "its integers have more than 16 bits, or a sign: their range is not known; save it with 8 or 16 bits"


class UnreadableImageError(ValueError):
    """An image that cannot be decoded; the message names it.

    Attributes:
        name: of the image.
        reason: why it cannot be decoded.
        pixels: of an image above the limit, how many it has; of others 0.
    """

    name: str = ""
    reason: str = ""
    pixels: int = 0

    def on_command_line(self, remedy: str) -> str:
        """The message with other advice: that of a command with an option `--max-pixels`."""
        if not self.reason:
            return str(self)
        advice = f"--max-pixels={self.pixels} reads it" if self.pixels else remedy
        return f"cannot read image '{self.name}' ({self.reason}); {advice}"


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How files become pixels.

    Attributes:
        exif_orientation: turn an image as its EXIF orientation says. By default it stays as it is stored: torchvision
            ignores the tag too, and published ImageNet accuracies rest on that.
        max_pixels: refuse images of more pixels; 0 for Pillow's own limit, twice `PIL.Image.MAX_IMAGE_PIXELS`.
        remedy: what messages advise.
        larger: what messages advise for an image above the limit; "{pixels}" is how many it has.
    """

    exif_orientation: bool = False
    max_pixels: int = 0
    remedy: str = 'replace or remove the file, or pass on_error="skip" to the loader'
    larger: str = "raise the limit, PIL.Image.MAX_IMAGE_PIXELS"


class Traits(NamedTuple):
    """What `castream data check` counts: an EXIF orientation other than upright, grey pixels, an alpha channel."""

    tagged: bool
    grey: bool
    alpha: bool


class EncodedImage:
    """An image file that is not decoded yet: whoever resizes it may ask for a coarser decoding.

    Of a file with several pictures it is the first. An alpha channel is dropped.
    """

    def __init__(self, file: Path | bytes, name: str, remedy: str = "", decoding: Decoding = Decoding()):
        """Args:
        file: path, or content of a file, which is read when it is needed.
        name: what messages call it.
        remedy: what messages advise; by default as in `decoding`.
        decoding: how it becomes pixels.
        """
        self._file, self._name = file, name
        self._decoding = dataclasses.replace(decoding, remedy=remedy) if remedy else decoding

    @property
    def path(self) -> Path | None:
        """Where the file lies; None if its content was given."""
        return self._file if isinstance(self._file, Path) else None

    def stored(self) -> bytes:
        """The content of the file, whatever it is."""
        return self._bytes

    @functools.cached_property
    def _bytes(self) -> bytes:
        return self._file if isinstance(self._file, bytes) else _content(self._file)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the whole image, in pixels.

        Raises:
            UnreadableImageError: this is no image; names it.
        """
        height, width = self._image.height, self._image.width
        turned = self._decoding.exif_orientation and orientation_of(self._image) >= _SIDEWAYS
        return (width, height) if turned else (height, width)

    @property
    def decoded_size(self) -> tuple[int, int]:
        """Height and width of what decoding gives, where that is not by a reduction: `size`."""
        return self.size

    def as_decoded(self) -> "EncodedImage":
        """The same file as an image whose `size` is that of its pixels."""
        return self

    @property
    def orientation(self) -> int:
        """The EXIF orientation, 1 (upright) to 8, whether or not it is applied."""
        return orientation_of(self._image)

    def is_plain(self, format: str = "") -> bool:
        """Whether the file stands for its pixels whatever the options of decoding; and is of a format, if one is named.

        Raises:
            UnreadableImageError: this is no image; names it.
        """
        turned = self._decoding.exif_orientation and self.orientation != 1
        return not turned and self._image.format == (format or self._image.format)

    @property
    def traits(self) -> Traits:
        """What there is to say of it beside its pixels."""
        image = self._image
        grey = image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")
        return Traits(self.orientation != 1, grey, image.has_transparency_data)

    @functools.cached_property
    def _image(self) -> Image.Image:
        with naming(self._name, self._decoding):
            limit = self._decoding.max_pixels
            if limit:
                allow_pixels(limit)
            # At once: Pillow would read a file in many small pieces.
            content = self.stored()
            if not content:
                raise ValueError("it is empty")
            image = Image.open(io.BytesIO(content))
            if limit and image.width * image.height > limit:
                raise Image.DecompressionBombError(f"{image.width * image.height} pixels, limit {limit}")
            return image

    def decode(self, reduction: int = 1) -> Image.Image:
        """The RGB image.

        Args:
            reduction: 1, 2, 4 or 8: how much smaller a JPEG may be decoded, which saves most of the work and gives
                nearly, not exactly, what a resize by a box filter would. Other formats ignore it.

        Raises:
            UnreadableImageError: the file is damaged, or its values have no known range; names it.
        """
        image = self._image
        with naming(self._name, self._decoding):
            if reduction > 1:
                image.draft(None, (image.width // reduction, image.height // reduction))
            return to_rgb(image, self._decoding.exif_orientation)

    def pixels(self, out: UInt8[np.ndarray, "h w 3"] | None = None) -> UInt8[np.ndarray, "_h _w 3"]:
        """The whole image, decoded exactly.

        Args:
            out: may take the pixels if it has their shape, and is then what is given back.

        Raises:
            UnreadableImageError: as `decode`.
        """
        pixels = decode_jpeg(self.stored(), out) if self.is_plain("JPEG") else None
        return np.asarray(self.decode()) if pixels is None else pixels


def _content(file: Path) -> bytes:
    """What is in a file; a ValueError for a pipe, a socket or a device, whose reading might never end."""
    mode = file.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a folder, the system says what it is
        raise ValueError("it is no regular file")
    return file.read_bytes()


@contextlib.contextmanager
def naming(name: str, decoding: Decoding) -> Iterator[None]:
    """Turns whatever decoding an image raises into an `UnreadableImageError` that names it.

    Args:
        name: of the image.
        decoding: what the message advises.
    """
    try:
        yield
    except Exception as error:  # Pillow's readers let anything through that a damaged file leads to
        reason, pixels = _reason(error)
        remedy = decoding.larger.format(pixels=pixels) if pixels else decoding.remedy
        unreadable = UnreadableImageError(f"cannot read image '{name}' ({reason}); {remedy}")
        unreadable.name, unreadable.reason, unreadable.pixels = name, reason, pixels
        raise unreadable from error


def _reason(error: Exception) -> tuple[str, int]:
    """Why an image cannot be read, and how many pixels it has if it has too many."""
    if isinstance(error, UnidentifiedImageError):
        return "it is in no image format that Pillow knows", 0
    if isinstance(error, Image.DecompressionBombError):
        pixels, limit = (int(number) for number in re.findall(r"\d+", str(error))[:2])
        return f"it has {pixels:,} pixels, and the limit is {limit:,}", pixels
    if isinstance(error, MemoryError):
        return "there is not enough memory for its pixels", 0
    if isinstance(error, OSError) and error.strerror:
        return error.strerror, 0
    return str(error) or type(error).__name__, 0


def allow_pixels(limit: int) -> bool:
    """Lets Pillow open images of up to `limit` pixels in this process; False if it does so already.

    Its own limit is one for all images, texts that are drawn included: it is raised, never lowered.
    """
    half = (limit + 1) // 2  # Pillow warns above its limit, and refuses what is more than twice as large
    if Image.MAX_IMAGE_PIXELS is None or half <= Image.MAX_IMAGE_PIXELS:
        return False
    Image.MAX_IMAGE_PIXELS = half
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    return True


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of an image, 1 (upright, and where there is none) to 8.

    A TIFF counts as upright: Pillow itself turns it, when it is decoded.
    """
    if image.format == "TIFF":
        return 1
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata do not make pixels unreadable
        return 1
    return orientation if orientation in _TURNS else 1


def to_rgb(image: Image.Image, exif_orientation: bool = False) -> Image.Image:
    """The RGB image of 8 bits; of one that is that already, the image itself, decoded.

    Args:
        image: of any mode. What has 8 bits becomes what Pillow's `convert("RGB")` makes of it.
        exif_orientation: turn it as its EXIF orientation says.

    Raises:
        ValueError: its values have no known range; says why.
    """
    rgb = _to_rgb(image)
    turn = _TURNS.get(orientation_of(image)) if exif_orientation else None
    return rgb if turn is None else rgb.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if _SIGNED in getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, ()):  # of 8 bits, Pillow takes it for unsigned
        raise ValueError(_NO_RANGE)
    image.load()
    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(_scaled(image))
    elif image.mode == "P" and "transparency" in image.info:
        # The same colours, without Pillow's warning about transparent palettes.
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _scaled(image: Image.Image) -> UInt8[np.ndarray, "h w"]:
    """Grey values of more than 8 bits as 8 bits."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    if image.mode == "F":
        grey = scale_floats(np.asarray(image))
    elif image.format == "FITS" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        # PNG and PPM have no more than 16 bits, whatever Pillow calls them.
        raise ValueError(_NO_RANGE)
    else:
        grey = scale_integers(np.asarray(image), int(tags.get(_BITS_PER_SAMPLE, (16,))[0]))
    return 255 - grey if tags.get(_PHOTOMETRIC) == 0 else grey  # 0: "white is zero", which Pillow heeds up to 8 bits


def scale_integers(values: np.ndarray, bits: int = 16) -> UInt8[np.ndarray, "..."]:
    """Unsigned integers of so many bits as 8 bits, rounded to the nearest."""
    top = 2**bits - 1
    return ((values.astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8)


def scale_floats(values: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Values in [0, 1] as 8 bits, rounded to the nearest.

    Raises:
        ValueError: there are others.
    """
    if not np.isfinite(values).all():
        raise ValueError("it has values that are not finite")
    low, high = values.min(), values.max()
    if low < 0 or high > 1:
        raise ValueError(
            f"its floating-point values lie in [{low:g}, {high:g}]: only [0, 1] is known to mean black to white"
        )
    return np.rint(values * 255).astype(np.uint8)
