"""Transforms are held to Pillow's own operations, and to torchvision's arithmetic written out with them."""

# Records that are asked for a box have one:
# pyright: reportTypedDictNotRequiredAccess=false

import numpy as np
from PIL import Image
import pytest

from castream_jax.data import CenterCrop, RandomCrop, RandomFlip, Record, Squash

SIZES = [(40, 60), (60, 40), (50, 50), (33, 47), (224, 31), (9, 13)]


def _record(pixels: np.ndarray, box: tuple[float, ...] | None = None) -> Record:
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


def test_squash_scales_the_box(random_image):
    record = Squash(20).map(_record(random_image(40, 80), box=(8, 4, 40, 20)))
    np.testing.assert_allclose(record["box"], [2, 2, 10, 10])
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


def test_random_flip_mirrors_about_half_of_the_images(random_image):
    pixels = random_image(4, 6)
    rng = np.random.default_rng(0)
    flips = 0
    for _ in range(400):
        flipped = RandomFlip().random_map(_record(pixels), rng)["pixels"]
        mirrored = np.array_equal(flipped, pixels[:, ::-1])
        assert mirrored or np.array_equal(flipped, pixels)
        flips += mirrored
    assert 160 < flips < 240


def test_random_crop_takes_every_window_of_the_padded_image(random_image):
    pixels, padding = random_image(5, 6), 2
    padded = np.pad(pixels, ((padding, padding), (padding, padding), (0, 0)))
    windows = {padded[y : y + 5, x : x + 6].tobytes(): (y, x) for y in range(5) for x in range(5)}
    rng = np.random.default_rng(0)
    seen = {windows[RandomCrop(padding).random_map(_record(pixels), rng)["pixels"].tobytes()] for _ in range(500)}
    assert seen == set(windows.values())


def test_random_crop_of_an_image_smaller_than_the_padding(random_image):
    rng = np.random.default_rng(0)
    shapes = {RandomCrop(9).random_map(_record(random_image(2, 3)), rng)["pixels"].shape for _ in range(200)}
    assert shapes == {(2, 3, 3)}


@pytest.mark.parametrize("transform", [RandomFlip(), RandomCrop(1)])
def test_random_transforms_drop_the_box(random_image, transform):
    record = transform.random_map(_record(random_image(4, 4), box=(0, 0, 2, 2)), np.random.default_rng(0))
    assert set(record) == {"pixels", "label", "index"}
    assert (record["label"], record["index"]) == (7, 3)


@pytest.mark.parametrize("transform", [Squash(3), CenterCrop(4, 3)])
def test_input_record_is_left_as_it_was(random_image, transform):
    record = _record(random_image(6, 8), box=(1, 1, 5, 5))
    pixels = record["pixels"].copy()
    transform.map(record)
    np.testing.assert_array_equal(record["pixels"], pixels)
    assert record["box"].tolist() == [1, 1, 5, 5]
