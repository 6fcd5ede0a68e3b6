"""Odd JPEGs by simplejpeg and by Pillow: the same pixels, or the same refusal."""

import io

import numpy as np
from PIL import Image
import pytest

from castream_jax.data import UnreadableImageError
from castream_jax.data.decode import EncodedImage
from castream_jax.data.jpeg import decode_jpeg
from castream_jax.data.prepared_images import PreparedImage

simplejpeg = pytest.importorskip("simplejpeg", reason="simplejpeg is not installed: Pillow decodes everything")


def _photograph(height: int = 183, width: int = 251) -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def _jpeg(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def _by_pillow(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


SAME = {
    **{
        f"{subsampling} {quality} {kind}": _jpeg(_photograph(), subsampling=subsampling, quality=quality, **options)
        for subsampling in ("4:4:4", "4:2:2", "4:2:0")
        for quality in (30, 90)
        for kind, options in {"baseline": {}, "progressive": {"progressive": True}}.items()
    },
    **{
        f"{height} x {width}": _jpeg(_photograph(height, width), subsampling="4:2:0")
        for height, width in ((1, 1), (7, 9), (2, 300))
    },
    "4:4:0": simplejpeg.encode_jpeg(np.asarray(_photograph()), 90, "RGB", "440"),
    "4:1:1": simplejpeg.encode_jpeg(np.asarray(_photograph()), 90, "RGB", "411"),
    "grey": _jpeg(_photograph().convert("L")),
    "rgb without conversion": _jpeg(_photograph(), keep_rgb=True),
    "restart markers": _jpeg(_photograph(), restart_marker_blocks=4),
    "garbage behind it": _jpeg(_photograph()) + b"abc",
}


@pytest.mark.parametrize("name", SAME)
def test_the_pixels_are_pillow_s(name):
    np.testing.assert_array_equal(decode_jpeg(SAME[name]), _by_pillow(SAME[name]))


def test_what_may_differ_is_left_to_pillow():
    content = _jpeg(_photograph().convert("CMYK"))
    assert decode_jpeg(content) is None
    for image in (EncodedImage(content, "odd"), PreparedImage(content, "odd", (9, 9), "")):
        np.testing.assert_array_equal(image.pixels(), _by_pillow(content))
    png = io.BytesIO()
    _photograph().save(png, "PNG")
    assert decode_jpeg(png.getvalue()) is None


def test_a_damaged_byte_gives_what_pillow_makes_of_it():
    """Wherever it is: the same pixels, however wrong, or a refusal by both."""
    whole = _jpeg(_photograph())
    left_to_pillow = refused = 0
    for place in range(2, len(whole), len(whole) // 60):
        content = whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :]
        left_to_pillow += decode_jpeg(content) is None
        try:
            expected = _by_pillow(content)
        except Exception:  # of many kinds
            refused += 1
            with pytest.raises(UnreadableImageError):
                EncodedImage(content, "damaged").pixels()
            continue
        np.testing.assert_array_equal(EncodedImage(content, "damaged").pixels(), expected)
    assert 0 < refused < left_to_pillow < 60


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_broken_ones_are_refused_as_by_pillow(kept):
    for options in ({}, {"progressive": True}):
        whole = _jpeg(_photograph(), **options)
        content = whole[: int(len(whole) * kept)]
        assert decode_jpeg(content) is None
        with pytest.raises(UnreadableImageError, match="cannot read image 'broken' "):
            EncodedImage(content, "broken").pixels()
