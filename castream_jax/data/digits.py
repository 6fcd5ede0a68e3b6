"""Bundled data: scikit-learn's handwritten digits, drawn on cluttered colour canvases.

Nothing is downloaded. Each canvas shows one whole digit, the label, among coloured strokes and cut-off pieces
of other digits, so that a saliency map has a right place to point at: the digit's box is part of the record.
"""

from functools import cache
from typing import Any

from jaxtyping import Float32, Int32, UInt8
import numpy as np
from PIL import Image, ImageDraw

from castream_jax.data.source import Record

Glyph = UInt8[np.ndarray, "8 8"]

SPLITS = ("train", "test")
TEST_STRIDE = 5  # every fifth of the 1,797 digits belongs to the test split


class CanvasDigits:
    """Colour canvases with one whole handwritten digit each.

    Digits are split by their position in scikit-learn's data: every fifth is a test digit (359), the others
    are training digits (1,438); pieces of other digits come from the same split. Record `i` shows digit
    `i % number of digits` and is a function of (split, i, seed) and the size alone, so more canvases per
    digit append records and change none.
    """

    def __init__(self, split: str, canvases_per_digit: int = 1, canvas_size: int = 64, seed: int = 0):
        """Loads the digits; canvases are drawn when read.

        Args:
            split: "train" or "test".
            canvases_per_digit: how many canvases show each digit.
            canvas_size: side in pixels; everything drawn scales with it.
            seed: of placement, colours and clutter; not negative.

        Raises:
            ValueError: an argument is out of range.
        """
        if split not in SPLITS:
            raise ValueError(f"unknown split '{split}' of the digits; choose one of {', '.join(SPLITS)}")
        if canvases_per_digit < 1:
            raise ValueError(f"canvases_per_digit is {canvases_per_digit}; at least one is needed")
        if canvas_size < 32:
            raise ValueError(f"canvas_size is {canvas_size}; digits need at least 32 pixels to be legible")
        glyphs, labels = _load_digits()
        held_out = np.arange(len(labels)) % TEST_STRIDE == TEST_STRIDE - 1
        chosen = held_out if split == "test" else ~held_out
        self._glyphs, self._labels = glyphs[chosen], labels[chosen]
        self._split = split
        self._canvases_per_digit = canvases_per_digit
        self._canvas_size = canvas_size
        self._seed = seed

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple("0123456789")

    @property
    def labels(self) -> Int32[np.ndarray, " canvases"]:
        """The digit of each canvas."""
        return np.tile(self._labels, self._canvases_per_digit)

    def __len__(self) -> int:
        return len(self._labels) * self._canvases_per_digit

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} is not one of 0 to {len(self) - 1}")
        rng = np.random.default_rng((self._seed, SPLITS.index(self._split), index))
        digit = index % len(self._labels)
        others = np.flatnonzero(self._labels != self._labels[digit])
        fragments = self._glyphs[rng.choice(others, size=rng.integers(3, 6))]
        pixels, box = draw_canvas(rng, self._glyphs[digit], fragments, self._canvas_size)
        return {"pixels": pixels, "label": self._labels[digit], "index": index, "box": box}

    def name(self, index: int) -> str:
        return f"digits/{self._split}/{index:04d}"


@cache
def _load_digits() -> tuple[UInt8[np.ndarray, "n 8 8"], Int32[np.ndarray, " n"]]:
    """Glyphs, 0 to 255, bright on black, and their labels (int32)."""
    from sklearn.datasets import load_digits  # slow to import, and only this source needs it

    digits: Any = load_digits()
    return (digits.images * (255 / 16)).astype(np.uint8), digits.target.astype(np.int32)


def draw_canvas(
    rng: np.random.Generator, glyph: Glyph, fragments: UInt8[np.ndarray, "n 8 8"], size: int
) -> tuple[UInt8[np.ndarray, "{size} {size} 3"], Float32[np.ndarray, "4"]]:
    """Draws background, strokes, pieces of `fragments` and the whole `glyph`, then dims the light.

    Returns:
        The canvas, and the tight box of the glyph: x0, y0, x1, y1 in pixels.
    """
    canvas = _background(rng, size)
    backdrop = np.asarray(canvas).mean((0, 1))

    mask = _glyph_mask(glyph, round(rng.uniform(22, 34) * size / 64))
    mask = mask.crop(mask.getbbox())
    left, top = rng.integers(0, size - mask.width + 1), rng.integers(0, size - mask.height + 1)
    # The box holds what is at least half covered; the fainter rim of the mask would make it a pixel too wide.
    x0, y0, x1, y1 = mask.point([0] * 128 + [255] * 128).getbbox() or (0, 0, *mask.size)
    box = (int(left) + x0, int(top) + y0, int(left) + x1, int(top) + y1)

    canvas = _draw_strokes(rng, canvas, backdrop)
    for other in fragments:
        _paste_fragment(rng, canvas, other, keep_clear=box, backdrop=backdrop)
    canvas.paste(_bright_colour(rng, backdrop), (int(left), int(top)), mask)
    light = rng.uniform(0.4, 1)
    return (np.asarray(canvas) * light).astype(np.uint8), np.array(box, np.float32)


def _background(rng: np.random.Generator, size: int) -> Image.Image:
    """A dim, smooth colour gradient with soft blotches and a little grain."""
    base = rng.uniform(0, 85) * rng.uniform(0.3, 1, size=3)  # down to black: masked images are black, too
    coarse = np.maximum(base + rng.uniform(-22, 22, size=(3, 3, 3)), 0)
    blotches = Image.fromarray(coarse.astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    grain = rng.integers(0, 12, size=(size, size, 1), dtype=np.uint8)
    return Image.fromarray(np.asarray(blotches) + grain)


def _draw_strokes(rng: np.random.Generator, canvas: Image.Image, backdrop: np.ndarray) -> Image.Image:
    """Straight and curved strokes, drawn at twice the size so that their edges are smooth."""
    size = 2 * canvas.width
    strokes = Image.new("RGBA", (size, size))
    draw = ImageDraw.Draw(strokes)
    for _ in range(rng.integers(2, 5)):
        colour = (*_bright_colour(rng, backdrop), int(rng.integers(110, 200)))
        width = int(rng.integers(2, 6)) * size // 128
        x0, y0, x1, y1 = rng.uniform(-0.1, 1.1, size=4) * size
        if rng.random() < 0.5:
            draw.line((x0, y0, x1, y1), fill=colour, width=width)
        else:
            # Open arcs of a large circle: a closed or tight one would read as a zero.
            radius, start = rng.uniform(0.4, 0.8) * size, rng.uniform(0, 360)
            circle = (x0 - radius, y0 - radius, x0 + radius, y0 + radius)
            draw.arc(circle, start, start + rng.uniform(40, 100), fill=colour, width=width)
    strokes = strokes.resize(canvas.size, Image.Resampling.BOX)
    canvas.paste(strokes, (0, 0), strokes)
    return canvas


def _paste_fragment(
    rng: np.random.Generator,
    canvas: Image.Image,
    glyph: Glyph,
    keep_clear: tuple[int, int, int, int],
    backdrop: np.ndarray,
) -> None:
    """Pastes about a third of a glyph, cut straight; gives up where it would cover the whole digit."""
    mask = _glyph_mask(glyph, round(rng.uniform(22, 34) * canvas.width / 64))
    x0, y0, x1, y1 = mask.getbbox() or (0, 0, *mask.size)
    share = rng.uniform(0.28, 0.38)
    side = rng.integers(4)
    if side == 0:
        x1 = x0 + round(share * (x1 - x0))
    elif side == 1:
        x0 = x1 - round(share * (x1 - x0))
    elif side == 2:
        y1 = y0 + round(share * (y1 - y0))
    else:
        y0 = y1 - round(share * (y1 - y0))
    mask = mask.crop((x0, y0, x1, y1))
    colour = _bright_colour(rng, backdrop)
    gap = canvas.width // 32  # a piece that touched the digit could turn a 1 into a 7
    for _ in range(8):
        left = int(rng.integers(-mask.width // 3, canvas.width - mask.width // 2))
        top = int(rng.integers(-mask.height // 3, canvas.height - mask.height // 2))
        if (
            left + mask.width + gap <= keep_clear[0]
            or top + mask.height + gap <= keep_clear[1]
            or left - gap >= keep_clear[2]
            or top - gap >= keep_clear[3]
        ):
            canvas.paste(colour, (left, top), mask)
            return


def _glyph_mask(glyph: Glyph, size: int) -> Image.Image:
    """Enlarges an 8 × 8 glyph to `size` × `size` pixels, plus a margin, as a mask with crisp edges."""
    padded = Image.fromarray(np.pad(glyph, 1))  # strokes at the border need room to end round
    side = round(size * 10 / 8)
    return padded.resize((side, side), Image.Resampling.BICUBIC).point(_EDGE)


# Bicubic enlargement leaves wide, blurred edges: a steep ramp makes pen strokes of them. A lower ramp closes
# the holes of 4, 6, 8 and 9, a higher one breaks thin strokes.
_EDGE = [int(np.clip((value - 98) / 70, 0, 1) * 255) for value in range(256)]
_LUMINANCE = np.array([0.299, 0.587, 0.114])


def _bright_colour(rng: np.random.Generator, backdrop: np.ndarray) -> tuple[int, int, int]:
    """A vivid colour, at least 90 grey levels brighter than `backdrop`."""
    colour = rng.uniform(0, 255, size=3)
    colour = (colour - colour.min()) * (255 / (colour.max() - colour.min()))  # fully saturated
    colour += rng.uniform(0.1, 0.55) * (255 - colour)
    missing = backdrop @ _LUMINANCE + 90 - colour @ _LUMINANCE
    if missing > 0:
        colour += (255 - colour) * (missing / (255 - colour @ _LUMINANCE))
    red, green, blue = colour.astype(int).tolist()
    return red, green, blue
