"""Random transforms are held to torchvision's operations on the same draws, and to its law of drawing."""

# pyright: reportAttributeAccessIssue=false

# Records that are asked for a box have one:
# pyright: reportTypedDictNotRequiredAccess=false

import io

import numpy as np
from PIL import Image
import pytest
from scipy.stats import ks_2samp

from castream_jax.data import BrightnessJitter, RandomCrop, RandomFlip, RandomResizedCrop, Record
from castream_jax.data.decode import EncodedImage


def _record(pixels, box: tuple[float, ...] | None = None) -> Record:
    record: Record = {"pixels": pixels, "label": np.int32(7), "index": 3}
    if box is not None:
        record["box"] = np.array(box, np.float32)
    return record


@pytest.mark.parametrize(("height", "width"), [(60, 80), (375, 500), (40, 31)])
def test_random_resized_crop_has_torchvisions_pixels(torchvision, random_image, height, width):
    pixels, transform = random_image(height, width), RandomResizedCrop(32)
    functional = torchvision.transforms.functional
    for seed in range(20):
        window = transform.window(height, width, np.random.default_rng(seed))
        expected = functional.resized_crop(Image.fromarray(pixels), *window, [32, 32])
        cropped = transform.random_map(_record(pixels), np.random.default_rng(seed))
        np.testing.assert_array_equal(cropped["pixels"], np.asarray(expected))


def test_random_resized_crop_draws_by_torchvisions_law(torch, torchvision):
    """Two-sample Kolmogorov-Smirnov on every side of 4,000 windows each; the seeds are fixed, so this cannot flake."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    image = Image.new("RGB", (500, 375))
    law = torchvision.transforms.RandomResizedCrop
    theirs = np.array([law.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
    ours = np.array([RandomResizedCrop(224).window(375, 500, rng) for _ in range(4000)])
    for column in range(4):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 0.01
    for derived in (lambda w: w[:, 2] * w[:, 3], lambda w: w[:, 3] / w[:, 2]):
        assert ks_2samp(derived(ours), derived(theirs)).pvalue > 0.01


@pytest.mark.parametrize(("height", "width"), [(10, 900), (900, 10), (100, 120)])
def test_random_resized_crop_falls_back_to_the_centre_as_torchvision_does(torchvision, height, width):
    # Areas that no window within the image can have.
    law = torchvision.transforms.RandomResizedCrop
    expected = law.get_params(Image.new("RGB", (width, height)), [1.5, 1.6], [3 / 4, 4 / 3])
    assert RandomResizedCrop(8, scale=(1.5, 1.6)).window(height, width, np.random.default_rng(0)) == expected


def test_random_resized_crop_moves_the_box(random_image):
    transform = RandomResizedCrop(40)
    for seed in range(30):
        top, left, height, width = transform.window(60, 80, np.random.default_rng(seed))
        record = transform.random_map(_record(random_image(60, 80), (20, 10, 60, 50)), np.random.default_rng(seed))
        x0, y0, x1, y1 = record["box"]
        assert x0 == pytest.approx(min(max((20 - left) * 40 / width, 0), 40), abs=1e-4)
        assert y1 == pytest.approx(min(max((50 - top) * 40 / height, 0), 40), abs=1e-4)
        assert 0 <= x0 <= x1 <= 40
        assert 0 <= y0 <= y1 <= 40


def test_random_resized_crop_from_a_draft_shows_the_same_window():
    rows, columns = np.mgrid[:400, :600]
    smooth = np.stack([rows * 255 // 400, columns * 255 // 600, rows * 0 + 90], -1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(smooth).save(file, "JPEG", quality=95)
    reduced = 0
    for seed in range(30):
        exact = RandomResizedCrop(48).random_map(_record(smooth), np.random.default_rng(seed))["pixels"]
        encoded = EncodedImage(file.getvalue(), "a.jpg")
        draft = RandomResizedCrop(48, draft=True).random_map(_record(encoded), np.random.default_rng(seed))["pixels"]
        reduced += encoded.size != (400, 600)
        # The window is rounded to whole pixels of the reduced image: half of 8 pixels are 5 of 255 levels here.
        np.testing.assert_allclose(np.asarray(draft, int), np.asarray(exact, int), atol=9)
    assert reduced > 20


def test_random_flip_mirrors_about_half_of_the_images_and_their_boxes(random_image):
    pixels = random_image(4, 6)
    rng = np.random.default_rng(0)
    flips = 0
    for _ in range(400):
        record = RandomFlip().random_map(_record(pixels, (1, 0, 3, 2)), rng)
        mirrored = np.array_equal(record["pixels"], pixels[:, ::-1])
        assert mirrored or np.array_equal(record["pixels"], pixels)
        assert record["box"].tolist() == ([3, 0, 5, 2] if mirrored else [1, 0, 3, 2])
        flips += mirrored
    assert 160 < flips < 240


def test_random_crop_takes_every_window_of_the_padded_image(random_image):
    pixels, padding = random_image(5, 6), 2
    padded = np.pad(pixels, ((padding, padding), (padding, padding), (0, 0)))
    windows = {padded[y : y + 5, x : x + 6].tobytes(): (y, x) for y in range(5) for x in range(5)}
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(500):
        record = RandomCrop(padding).random_map(_record(pixels, (1, 1, 5, 4)), rng)
        y, x = windows[record["pixels"].tobytes()]
        seen.add((y, x))
        expected = np.clip(np.array([1 + 2 - x, 1 + 2 - y, 5 + 2 - x, 4 + 2 - y]), 0, [6, 5, 6, 5])
        np.testing.assert_array_equal(record["box"], expected)
    assert seen == set(windows.values())


def test_random_crop_of_an_image_smaller_than_the_padding(random_image):
    rng = np.random.default_rng(0)
    shapes = {RandomCrop(9).random_map(_record(random_image(2, 3)), rng)["pixels"].shape for _ in range(200)}
    assert shapes == {(2, 3, 3)}


class Lowest(np.random.Generator):
    """Draws the lower end of every range."""

    def uniform(self, low: float, high: float) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        return low


def test_brightness_jitter_is_torchvisions_with_a_uniform_factor(torchvision, random_image):
    pixels = random_image(6, 7)
    factors = []
    for seed in range(300):
        factors.append(np.random.default_rng(seed).uniform(0.6, 1.4))
        expected = torchvision.transforms.functional.adjust_brightness(Image.fromarray(pixels), factors[-1])
        changed = BrightnessJitter(0.4).random_map(_record(pixels), np.random.default_rng(seed))["pixels"]
        np.testing.assert_array_equal(changed, np.asarray(expected))
    assert min(factors) < 0.62
    assert max(factors) > 1.38
    # torchvision does not go below 0.
    lowest = BrightnessJitter(3).random_map(_record(pixels), Lowest(np.random.PCG64()))
    assert not lowest["pixels"].any()
