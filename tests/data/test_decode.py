"""Whatever a file holds becomes RGB of 8 bits, or is refused with the reason."""

import io
import pickle

import numpy as np
from PIL import Image
import pytest

from castream_jax.data.decode import Decoding, EncodedImage, UnreadableImageError, orientation_of, to_rgb

GREY = np.linspace(0, 255, 12 * 16).astype(np.uint8).reshape(12, 16)
RGB = np.repeat(GREY[..., None], 3, axis=2)


def encode(image: Image.Image, suffix: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, suffix, **options)
    return file.getvalue()


def read(data: bytes, **decoding) -> np.ndarray:
    return EncodedImage(data, "an image", decoding=Decoding(**decoding)).pixels()


@pytest.mark.parametrize("suffix", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_sixteen_bits_are_read_as_eight(suffix):
    np.testing.assert_array_equal(read(encode(Image.fromarray(GREY.astype(np.uint16) * 257), suffix)), RGB)


def test_sixteen_bits_are_rounded_to_the_nearest():
    values = np.array([[0, 128, 129, 32767, 65406, 65407, 65535]], np.uint16)
    expected = np.rint(values / 257).astype(np.uint8)
    assert read(encode(Image.fromarray(values), "PNG"))[..., 0].tolist() == expected.tolist()


def test_sixteen_bits_of_the_other_byte_order():
    image = Image.frombytes("I;16B", (16, 12), (GREY.astype(">u2") * 257).tobytes())
    np.testing.assert_array_equal(np.asarray(to_rgb(image)), RGB)


def test_twelve_bits_of_a_tiff_are_not_taken_for_sixteen():
    data = _tiff(bits=12, photometric=1, row=bytes([0x00, 0x0F, 0xFF]))  # the values 0 and 4095
    assert read(data)[0, :, 0].tolist() == [0, 255]


def test_a_tiff_whose_zero_is_white():
    data = _tiff(bits=16, photometric=0, row=np.array([0, 65535], "<u2").tobytes())
    assert read(data)[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("bits", [8, 16])
def test_signed_integers_of_a_tiff_are_refused(bits):
    data = _tiff(bits=bits, photometric=1, row=np.array([-1, 1], f"<i{bits // 8}").tobytes(), sample_format=2)
    with pytest.raises(UnreadableImageError, match="or a sign: their range is not known"):
        read(data)


def _tiff(bits: int, photometric: int, row: bytes, sample_format: int = 1) -> bytes:
    """A grey TIFF of one row of two pixels, as Pillow does not write it."""
    tags = {256: 2, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 1, 279: len(row)}
    tags[339] = sample_format
    short = [(tag, 3, 1, value) for tag, value in tags.items()]
    padded = row + b"\0" * (-len(row) % 2)
    directory = len(short).to_bytes(2, "little")
    for tag, kind, count, value in short:
        directory += b"".join(
            number.to_bytes(size, "little") for number, size in ((tag, 2), (kind, 2), (count, 4), (value, 4))
        )
    return b"II*\0" + (8 + len(padded)).to_bytes(4, "little") + padded + directory + bytes(4)


def test_floating_point_from_0_to_1_is_scaled():
    np.testing.assert_array_equal(read(encode(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF")), RGB)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (GREY.astype(np.float32), r"floating-point values lie in \[0, 255\]: only \[0, 1\]"),
        (GREY / np.float32(255) - 1, r"floating-point values lie in \[-1, 0\]"),
        (np.where(GREY > 9, np.nan, 0).astype(np.float32), "not finite"),
        (GREY.astype(np.int32) * 257, "more than 16 bits, or a sign: their range is not known"),
        (GREY.astype(np.int32), "more than 16 bits, or a sign"),
    ],
)
def test_values_of_unknown_range_are_refused_with_the_reason(values, reason):
    with pytest.raises(UnreadableImageError, match=rf"^cannot read image 'an image' \(.*{reason}.*\); replace or"):
        read(encode(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P", "CMYK", "YCbCr"])
def test_eight_bits_are_what_pillow_makes_of_them(mode):
    image = Image.fromarray(np.stack([GREY, GREY[::-1], GREY[:, ::-1]], -1)).convert(mode)
    data = encode(image, "JPEG" if mode == "YCbCr" else "TIFF")
    with Image.open(io.BytesIO(data)) as opened:
        np.testing.assert_array_equal(read(data), np.asarray(opened.convert("RGB")))


def test_of_several_frames_the_first_is_read():
    frames = [Image.fromarray(GREY.astype(np.uint16) * 257), Image.fromarray(np.zeros_like(GREY, np.uint16))]
    np.testing.assert_array_equal(read(encode(frames[0], "TIFF", save_all=True, append_images=frames[1:])), RGB)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "WEBP"])
def test_an_exif_orientation_is_applied_where_it_is_asked_for(orientation, suffix):
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if suffix == "WEBP" else {}
    data = encode(Image.fromarray(RGB), suffix, exif=exif, **options)
    stored, turned = EncodedImage(data, ""), EncodedImage(data, "", decoding=Decoding(exif_orientation=True))
    assert stored.orientation == turned.orientation == orientation
    assert stored.traits.tagged == (orientation != 1)
    sideways = orientation >= 5
    assert (stored.size, turned.size) == ((12, 16), (16, 12) if sideways else (12, 16))
    of_stored, of_turned = stored.pixels(), turned.pixels()
    assert of_stored.shape == (12, 16, 3)
    assert of_turned.shape == (*turned.size, 3)
    corner = of_stored[0, 0].tolist()  # the darkest; where it comes to lie, EXIF says
    row, column = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}[
        orientation
    ]
    assert of_turned[row, column].tolist() == corner
    np.testing.assert_array_equal(np.sort(of_turned, axis=None), np.sort(of_stored, axis=None))


def test_a_tiff_is_turned_once_as_pillow_does_it():
    exif = Image.Exif()
    exif[274] = 6
    data = encode(Image.fromarray(RGB), "TIFF", exif=exif)
    for upright in (False, True):
        image = EncodedImage(data, "", decoding=Decoding(exif_orientation=upright))
        assert image.size == (16, 12)
        np.testing.assert_array_equal(image.pixels(), np.rot90(RGB, -1))
        assert not image.traits.tagged


def test_damaged_metadata_do_not_matter():
    data = encode(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff")
    assert orientation_of(Image.open(io.BytesIO(data))) == 1
    assert read(data, exif_orientation=True).shape == (12, 16, 3)


def test_traits_tell_grey_and_alpha():
    def traits(image):
        return EncodedImage(encode(image, "PNG"), "").traits

    assert traits(Image.fromarray(GREY)) == (False, True, False)
    assert traits(Image.fromarray(GREY.astype(np.uint16))) == (False, True, False)
    assert traits(Image.fromarray(RGB)) == (False, False, False)
    assert traits(Image.fromarray(RGB).convert("RGBA")) == (False, False, True)
    assert traits(Image.fromarray(GREY).convert("LA")) == (False, True, True)


def test_a_limit_of_pixels_that_can_be_raised(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    data = encode(Image.fromarray(RGB), "PNG")
    sentence = r"\(it has 192 pixels, and the limit is 100\); raise the limit, PIL\.Image\.MAX_IMAGE_PIXELS"
    with pytest.raises(UnreadableImageError, match=sentence) as error:
        read(data)
    assert error.value.pixels == 192
    assert error.value.on_command_line("").endswith("; --max-pixels=192 reads it")
    np.testing.assert_array_equal(read(data, max_pixels=192), RGB)
    with pytest.raises(UnreadableImageError, match=r"limit is 190\); give 192 for it"):
        read(data, max_pixels=190, larger="give {pixels} for it")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"<html>404</html>", "it is in no image format that Pillow knows"),
        (encode(Image.fromarray(RGB), "PNG")[:60], "truncated|broken|unrecognized"),
    ],
)
def test_damaged_files_are_named_without_addresses_of_objects(data, reason):
    with pytest.raises(UnreadableImageError, match=reason) as error:
        read(data)
    assert " at 0x" not in str(error.value)
    again = pickle.loads(pickle.dumps(error.value))  # as it comes from a worker process
    assert (str(again), again.name, again.reason) == (str(error.value), "an image", error.value.reason)
