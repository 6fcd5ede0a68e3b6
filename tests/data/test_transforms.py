"""Transforms are held to Pillow's own operations, and to torchvision's arithmetic written out with them."""

# Records that are asked for a box have one:
# pyright: reportTypedDictNotRequiredAccess=false

import dataclasses
import io

import numpy as np
from PIL import Image
import pytest

from castream_jax.data import CenterCrop, Record, Squash
from castream_jax.data.decode import EncodedImage

SIZES = [(40, 60), (60, 40), (50, 50), (33, 47), (224, 31), (9, 13)]


def _record(pixels, box: tuple[float, ...] | None = None) -> Record:
    record: Record = {"pixels": pixels, "label": np.int32(7), "index": 3}
    if box is not None:
        record["box"] = np.array(box, np.float32)
    return record


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_squash_is_pillows_bilinear_resize(random_image, height, width):
    pixels = random_image(height, width)
    expected = Image.fromarray(pixels).resize((24, 24), Image.Resampling.BILINEAR)
    squashed = Squash(24).map(_record(pixels))
    np.testing.assert_array_equal(squashed["pixels"], np.asarray(expected))
    assert squashed["pixels"].dtype == np.uint8
    assert (squashed["label"], squashed["index"]) == (7, 3)


def test_squash_scales_the_box_and_cuts_it_at_the_edge(random_image):
    record = Squash(20).map(_record(random_image(40, 80), box=(8, 4, 40, 20)))
    np.testing.assert_allclose(record["box"], [2, 2, 10, 10])
    beyond = Squash(20).map(_record(random_image(40, 80), box=(8, -4, 90, 20)))["box"]
    np.testing.assert_allclose(beyond, [2, 0, 20, 10])
    assert record["box"].dtype == np.float32


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("resize", "size"), [(32, 28), (32, 27), (21, 20), (20, 20), (16, 25)])
def test_center_crop_is_torchvisions_resize_and_center_crop(random_image, height, width, resize, size):
    pixels = random_image(height, width)
    if height <= width:
        new_height, new_width = resize, int(resize * width / height)
    else:
        new_height, new_width = int(resize * height / width), resize
    image = Image.fromarray(pixels).resize((new_width, new_height), Image.Resampling.BILINEAR)
    if size <= resize:
        top, left = int(round((new_height - size) / 2.0)), int(round((new_width - size) / 2.0))  # noqa: RUF046
    else:  # torchvision pads first; it did so to the image below
        padded = Image.new("RGB", (max(new_width, size), max(new_height, size)))
        padded.paste(image, (max(size - new_width, 0) // 2, max(size - new_height, 0) // 2))
        image = padded
        top, left = round((image.height - size) / 2.0), round((image.width - size) / 2.0)
    expected = image.crop((left, top, left + size, top + size))
    cropped = CenterCrop(resize, size).map(_record(pixels))
    np.testing.assert_array_equal(cropped["pixels"], np.asarray(expected))


def test_center_crop_scales_shifts_and_clips_the_box(random_image):
    # 40 × 80 becomes 20 × 40; the 16 × 16 crop begins at x = 12, y = 2.
    record = CenterCrop(20, 16).map(_record(random_image(40, 80), box=(30, 10, 80, 30)))
    np.testing.assert_allclose(record["box"], [3, 3, 16, 13])


@pytest.mark.parametrize("transform", [Squash(3), CenterCrop(4, 3)])
def test_input_record_is_left_as_it_was(random_image, transform):
    record = _record(random_image(6, 8), box=(1, 1, 5, 5))
    pixels = record["pixels"].copy()
    transform.map(record)
    np.testing.assert_array_equal(record["pixels"], pixels)
    assert record["box"].tolist() == [1, 1, 5, 5]


@pytest.mark.parametrize("transform", [Squash(24), CenterCrop(28, 24)])
def test_a_file_gives_the_pixels_of_its_whole_decoding(random_image, transform):
    """Not decoded by a reduction, although that would still leave more than the wanted size."""
    data = _jpeg(random_image(120, 200))
    with Image.open(io.BytesIO(data)) as image:
        expected = transform.map(_record(np.asarray(image)))["pixels"]
    record = transform.map(_record(EncodedImage(data, "a.jpg")))
    np.testing.assert_array_equal(np.asarray(record["pixels"]), expected)


@pytest.mark.parametrize(
    ("size", "transform", "reduction"),
    [
        ((120, 200), Squash(60), 2),
        ((119, 200), Squash(60), 1),
        ((120, 200), Squash(15), 8),
        ((240, 960), CenterCrop(60, 50), 4),
        ((239, 960), CenterCrop(60, 50), 2),
    ],
)
def test_draft_decodes_as_small_as_leaves_the_wanted_size(size, transform, reduction):
    # A smooth image: the reduced decoding then differs by rounding, and by how edges are met.
    rows, columns = np.mgrid[: size[0], : size[1]]
    smooth = np.stack([rows * 255 // size[0], columns * 255 // size[1], rows * 0 + 90], -1).astype(np.uint8)
    file = EncodedImage(_jpeg(smooth), "a.jpg")
    box = (10.0, 20.0, 50.0, 100.0)
    record = dataclasses.replace(transform, draft=True).map(_record(file, box))
    decoded = file._image.size
    assert decoded == (-(-size[1] // reduction), -(-size[0] // reduction))
    exact = transform.map(_record(EncodedImage(_jpeg(smooth), "a.jpg"), box))
    np.testing.assert_allclose(np.asarray(record["pixels"], int), np.asarray(exact["pixels"], int), atol=5)
    np.testing.assert_array_equal(record["box"], exact["box"])


def test_several_boxes_follow_and_none_stays_none(random_image):
    boxes = np.array([[8, 4, 40, 20], [0, 0, 0, 0], [70, 10, 80, 20]], np.float32)
    record = _record(random_image(40, 80)) | {"box": boxes}
    np.testing.assert_allclose(Squash(20).map(record)["box"], [[2, 2, 10, 10], [0, 0, 0, 0], [17.5, 5, 20, 10]])
    # 20 × 40 after resizing; the crop begins at x = 12, y = 2, so that the last box is outside.
    cropped = CenterCrop(20, 16).map(record)["box"]
    np.testing.assert_allclose(cropped[0], [0, 0, 8, 8])
    assert (cropped[1:, 2] - cropped[1:, 0]).tolist() == [0, 0]


def _jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()
