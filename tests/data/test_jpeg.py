"""JPEGs are decoded without Pillow where that gives Pillow's pixels; Pillow is the reference, and what is left to."""

import io

import numpy as np
from PIL import Image
import pytest

from castream_jax.data import jpeg
from castream_jax.data.decode import Decoding, EncodedImage, UnreadableImageError
from castream_jax.data.jpeg import decode_jpeg

simplejpeg = pytest.importorskip("simplejpeg")


def _smooth(height: int, width: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def _encode(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def _by_pillow(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (16, 17), (33, 65), (100, 75)])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "4:4:0", "4:1:1"])
def test_every_subsampling_quality_and_order_of_scans_gives_pillow_s_pixels(size, subsampling):
    image = _smooth(*size)
    if subsampling in ("4:4:0", "4:1:1"):  # Pillow reads them, and does not write them
        files = [simplejpeg.encode_jpeg(np.array(image), 90, "RGB", subsampling.replace(":", ""))]
    else:
        files = [
            _encode(image, quality=quality, subsampling=subsampling, progressive=progressive)
            for quality in (1, 75, 100)
            for progressive in (False, True)
        ]
    for file in files:
        np.testing.assert_array_equal(decode_jpeg(file), _by_pillow(file))


def test_pixels_go_where_they_belong_or_into_an_array_of_their_own():
    file = _encode(_smooth(16, 17))
    rows = np.zeros((2, 16, 17, 3), np.uint8)
    assert decode_jpeg(file, rows[1]).base is rows
    np.testing.assert_array_equal(rows[1], _by_pillow(file))
    assert not rows[0].any()
    np.testing.assert_array_equal(decode_jpeg(file, np.zeros((17, 16, 3), np.uint8)), _by_pillow(file))
    np.testing.assert_array_equal(EncodedImage(file, "image").pixels(rows[0]), rows[1])
    assert decode_jpeg(file[:-2], rows[0]) is None


def test_unusual_jpegs_give_pillow_s_pixels_or_are_left_to_pillow():
    image = _smooth(33, 65)
    planes = [_smooth(33, 65, seed).convert("L") for seed in range(4)]
    cmyk, whole = _encode(Image.merge("CMYK", planes)), _encode(image)
    read = [
        _encode(planes[0]),
        _encode(image, keep_rgb=True),
        _encode(image, restart_marker_rows=1, optimize=True),
        whole + b"what a camera appends",
    ]
    for file in read:
        np.testing.assert_array_equal(decode_jpeg(file), _by_pillow(file))
    left = [cmyk, whole[: len(whole) // 2], whole[:-2], b"", b"no image", whole[:20]]
    assert [decode_jpeg(file) for file in left] == [None] * len(left)
    np.testing.assert_array_equal(EncodedImage(cmyk, "cmyk").pixels(), _by_pillow(cmyk))
    with pytest.raises(UnreadableImageError, match=r"cannot read image 'half' \(image file is truncated"):
        EncodedImage(left[1], "half").pixels()


def test_a_damaged_jpeg_is_read_as_pillow_reads_it_or_refused_as_pillow_refuses_it():
    rng = np.random.default_rng(0)
    whole = [_encode(_smooth(24, 32)), _encode(_smooth(24, 32), progressive=True, quality=60), _encode(_smooth(9, 9))]
    read = {"by libjpeg-turbo": 0, "by Pillow": 0, "not": 0}
    for number in range(600):
        file = bytearray(whole[number % 3])
        begin = rng.integers(2, len(file))
        file[begin : begin + rng.integers(1, 4)] = rng.bytes(rng.integers(0, 4))  # changed, lost or inserted
        damaged = bytes(file)
        try:
            expected = _by_pillow(damaged)
        except Exception:  # whatever Pillow raises of a damaged file
            with pytest.raises(UnreadableImageError):
                EncodedImage(damaged, "damaged").pixels()
            read["not"] += 1
            continue
        np.testing.assert_array_equal(EncodedImage(damaged, "damaged").pixels(), expected)
        read["by Pillow" if decode_jpeg(damaged) is None else "by libjpeg-turbo"] += 1
    assert min(read.values()) > 30, read


def test_orientation_and_limits_are_heeded_and_a_machine_without_libjpeg_turbo_reads_the_same(monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = _encode(_smooth(20, 30), exif=exif)
    expected = _by_pillow(file)
    np.testing.assert_array_equal(EncodedImage(file, "tagged").pixels(), expected)
    turned = EncodedImage(file, "tagged", decoding=Decoding(exif_orientation=True)).pixels()
    np.testing.assert_array_equal(turned, np.rot90(expected, -1))
    with pytest.raises(UnreadableImageError, match="it has 600 pixels, and the limit is 599"):
        EncodedImage(file, "large", decoding=Decoding(max_pixels=599)).pixels()
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    assert decode_jpeg(file) is None
    np.testing.assert_array_equal(EncodedImage(file, "tagged").pixels(), expected)
