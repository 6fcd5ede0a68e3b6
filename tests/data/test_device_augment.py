"""Crops, flips, shifts and brightness on the device, beside those of the host."""

# pyright: reportAttributeAccessIssue=false

import io
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageEnhance
import pytest
from scipy import stats
from tiers import slow_after

from castream_jax.data import CanvasDigits, RandomCrop, RandomResizedCrop, Subset, record_transforms, train_loader
from castream_jax.data.decode import Decoding, EncodedImage
from castream_jax.data.device_augment import (
    brighten,
    crop_and_resize,
    draw_window,
    make_device_augment,
    scale_windows,
)
from castream_jax.data.from_config import device_side
from castream_jax.data.prepared_images import PreparedImage
from castream_jax.data.transforms import IntoSquare
from castream_jax.experiment.config import base_config
from castream_jax.runtime.mesh import data_mesh, split_over_images

COUNT = 1500  # draws of each distribution
SLOW = pytest.mark.slow


def _data(**fields):
    data = base_config().data
    data.update({"image_size": 24, "augment_on_device": True} | fields)
    return data


def _images(count: int, side: int) -> np.ndarray:
    """Half of them noise, half of them smooth."""
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)) for n in (side, 5)]
    images = [coarse[i % 2].resize((side, side), Image.Resampling.BICUBIC).rotate(90 * (i % 4)) for i in range(count)]
    return np.stack([np.asarray(image) for image in images])


def _batch(count: int, side: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "pixels": _images(count, side),
        "size": rng.integers(side, 5 * side, (count, 2)).astype(np.int32),
        "placed": np.full((count, 2), side, np.int32),
        "epoch": np.arange(count, dtype=np.int32) // 5,
        "index": np.arange(count, dtype=np.int32) % 5,
    }


@pytest.mark.parametrize("size", slow_after(2, [8, 40, 24]))
def test_crops_are_pillow_s(size):
    """Windows down to one pixel, up to all of the image, that are made smaller and larger."""
    rng = np.random.default_rng(2)
    pixels = _images(40, 32)
    begin = rng.integers(0, 32, (40, 2))
    end = rng.integers(begin + 1, 33)
    begin[:2], end[:2] = 0, 32
    windows = np.concatenate([begin, end], axis=1).astype(np.int32)
    got = np.asarray(jax.jit(crop_and_resize, static_argnums=2)(pixels, windows, size))
    crops = [
        Image.fromarray(image).crop((left, top, right, bottom))
        for image, (top, left, bottom, right) in zip(pixels, windows.tolist(), strict=True)
    ]
    expected = np.stack([np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR)) for crop in crops])
    heights, widths = (end - begin).T
    columns_first = heights <= widths  # in every release of Pillow
    assert 10 < columns_first.sum() < 30
    np.testing.assert_array_equal(got[columns_first], expected[columns_first])
    assert np.abs(got.astype(int) - expected).max() <= 1


def test_brightness_is_pillow_s():
    pixels = _images(16, 32)
    factors = np.random.default_rng(3).uniform(0, 2, 16).astype(np.float32)
    expected = [
        np.asarray(ImageEnhance.Brightness(Image.fromarray(image)).enhance(float(factor)))
        for image, factor in zip(pixels, factors, strict=True)
    ]
    np.testing.assert_array_equal(brighten(jnp.asarray(pixels), jnp.asarray(factors)), expected)


@pytest.mark.parametrize("size", [(375, 500), pytest.param((60, 400), marks=SLOW), pytest.param((400, 60), marks=SLOW)])
def test_windows_are_distributed_as_on_the_host(size):
    """Kolmogorov and Smirnov's test of two samples for top, left, height and width; seeds are fixed."""
    keys = jax.random.split(jax.random.key(0), COUNT)
    top, left, bottom, right = np.asarray(jax.vmap(lambda key: draw_window(key, jnp.array(size)))(keys)).T
    assert min(top.min(), left.min()) >= 0
    assert bottom.max() <= size[0]
    assert right.max() <= size[1]
    rng = np.random.default_rng(0)
    host = np.array([RandomResizedCrop(24).window(*size, rng) for _ in range(COUNT)])
    for ours, theirs in zip((top, left, bottom - top, right - left), host.T, strict=True):
        assert stats.ks_2samp(ours, theirs).pvalue > 0.001


def test_flips_shifts_and_brightness_are_distributed_as_on_the_host():
    """A grey image with one bright pixel shows what was drawn."""
    image = np.full((9, 9, 3), 100, np.uint8)
    image[4, 2] = 200
    batch = {
        "pixels": np.stack([image] * COUNT),
        "epoch": np.zeros(COUNT, np.int32),
        "index": np.arange(COUNT, dtype=np.int32),
    }
    augment = make_device_augment(_data(resize="none", flip=True, crop_padding=1, brightness=0.4), seed=0)
    pixels = np.asarray(jax.jit(augment)(batch))[..., 0]
    rows, columns = np.unravel_index(pixels.reshape(COUNT, -1).argmax(1), (9, 9))
    mirrored = columns > 4  # the pixel is in column 2, or 6, give or take one
    assert stats.binomtest(int(mirrored.sum()), COUNT).pvalue > 0.001
    for places, middle in ((rows, 4), (columns[mirrored], 6), (columns[~mirrored], 2)):
        counts = [np.sum(places == middle + shift) for shift in (-1, 0, 1)]
        assert sum(counts) == len(places)
        assert stats.chisquare(counts).pvalue > 0.001
    factors = pixels[:, 4, 4] / 100  # cut off to whole levels, each of 1/100
    assert stats.kstest(factors + 0.005, "uniform", (0.6, 0.8)).pvalue > 0.001


def test_a_shift_is_the_host_s():
    """Its border is black, and what is outside does not come in at the other side."""
    batch = _batch(60, 12)
    augment = make_device_augment(_data(resize="none", flip=False, crop_padding=3), seed=4)
    shifted = np.asarray(jax.jit(augment)(batch))
    record = {"pixels": batch["pixels"][7], "label": np.int32(0), "index": 0}
    possible = {
        RandomCrop(3).random_map(record, np.random.default_rng(seed))["pixels"].tobytes() for seed in range(400)
    }
    assert len(possible) == 49
    assert shifted[7].tobytes() in possible
    assert len({image.tobytes() for image in shifted}) > 50


def test_what_is_drawn_follows_from_seed_epoch_and_record_alone_on_any_number_of_devices():
    batch = _batch(16, 32)
    data = _data(brightness=0.4, crop_padding=2)
    augment = make_device_augment(data, seed=5)
    alone = np.asarray(jax.jit(augment)(batch))
    assert alone.shape == (16, 24, 24, 3)

    images = split_over_images(data_mesh())
    assert images.mesh.size == 4
    shared = jax.jit(augment, in_shardings=images, out_shardings=images)
    placed = {name: jax.device_put(rows, images) for name, rows in batch.items()}
    np.testing.assert_array_equal(np.asarray(shared(placed)), alone)
    hlo = shared.lower(placed).compile().as_text()
    assert not re.findall(r"all-gather|all-reduce|all-to-all|collective-permute", hlo)

    order = np.random.default_rng(0).permutation(16)
    np.testing.assert_array_equal(jax.jit(augment)({name: rows[order] for name, rows in batch.items()}), alone[order])
    for changed in (batch | {"epoch": batch["epoch"] + 1}, batch | {"index": batch["index"] + 5}):
        assert (np.asarray(jax.jit(augment)(changed)) != alone).any((1, 2, 3)).all()
    other = jax.jit(make_device_augment(data, seed=6))(batch)
    assert (np.asarray(other) != alone).any((1, 2, 3)).all()


def test_the_loader_gives_squares_with_the_size_the_pass_and_the_place_of_each_image():
    data = _data(image_size=28)
    assert device_side(data) == 32
    source = Subset(CanvasDigits("test", canvas_size=40), range(30))
    options = {"num_epochs": 3, "seed": 0, "transforms": record_transforms(data, train=True), "num_threads": 1}
    whole, *_ = train_loader(source, batch_size=50, numbered=True, **options)
    assert whole["pixels"].shape == (50, 32, 32, 3)
    assert (whole["size"] == 40).all()
    assert whole["epoch"].tolist() == [0] * 30 + [1] * 20
    assert sorted(whole["index"][:30]) == list(range(30))
    assert [source[int(i)]["label"] for i in whole["index"][:9]] == whole["label"][:9].tolist()
    shares = [
        next(iter(train_loader(source, batch_size=50, numbered=True, process_index=p, process_count=2, **options)))
        for p in (0, 1)
    ]
    for key in ("epoch", "index"):
        np.testing.assert_array_equal(np.stack([share[key] for share in shares], 1).ravel(), whole[key])


def test_originals_of_another_shape_are_cropped_where_they_were():
    """The left half of an original of 60 × 100 is the left half of what it was squashed to."""
    windows, sizes = jnp.array([[0, 0, 60, 50], [30, 99, 31, 100]]), jnp.array([[60, 100], [60, 100]])
    squared = scale_windows(windows, sizes, jnp.array([[20, 20], [20, 20]]))
    assert squared.tolist() == [[0, 0, 20, 10], [10, 19, 11, 20]]
    assert scale_windows(windows, sizes, sizes).tolist() == windows.tolist()


def test_an_image_that_fits_is_cropped_as_it_is():
    """Nothing of the black around it is seen, and the pixels are those of Pillow on the image alone."""
    small = _images(2, 20)[0][:, :15]
    placed: Any = IntoSquare(32).map({"pixels": small, "label": np.int32(0), "index": 0})
    assert (placed["size"].tolist(), placed["placed"].tolist()) == ([20, 15], [20, 15])
    assert not placed["pixels"][20:].any()
    assert not placed["pixels"][:, 15:].any()
    window = jnp.array([[3, 4, 20, 15]])
    sizes = [jnp.asarray(placed[name][None]) for name in ("size", "placed")]
    got = crop_and_resize(jnp.asarray(placed["pixels"][None]), scale_windows(window, *sizes), 24)
    expected = Image.fromarray(small).crop((4, 3, 15, 20)).resize((24, 24), Image.Resampling.BILINEAR)
    assert np.abs(np.asarray(got[0]).astype(int) - np.asarray(expected)).max() <= 1  # it is higher than wide


@pytest.mark.parametrize("shape", [(32, 32), (40, 30), (31, 33), (8, 8)])
def test_whatever_is_brought_into_the_square_says_what_it_is_there(shape: tuple[int, int]):
    pixels = _images(1, 64)[0][: shape[0], : shape[1]]
    given: Any = {"pixels": pixels, "label": np.int32(3), "index": 7, "box": np.zeros(4, np.float32)}
    record: Any = IntoSquare(32).map(given)
    fits = max(shape) <= 32
    expected = np.zeros((32, 32, 3), np.uint8)
    expected[: shape[0], : shape[1]] = pixels[:32, :32] if fits else 0
    if not fits:
        expected = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(record["pixels"], expected)
    assert record["size"].tolist() == list(shape)
    assert record["placed"].tolist() == (list(shape) if fits else [32, 32])
    assert (record["label"], record["index"], "box" in record) == (3, 7, False)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    prepared = PreparedImage(file.getvalue(), "image", (400, 300), shape, Decoding())
    for image, size in ((EncodedImage(file.getvalue(), "image"), list(shape)), (prepared, [400, 300])):
        record = IntoSquare(32).map(given | {"pixels": image})
        found = record["pixels"]
        np.testing.assert_array_equal(found.pixels() if isinstance(found, EncodedImage) else found, expected)
        assert record["size"].tolist() == size
        assert record["placed"].tolist() == (list(shape) if fits else [32, 32])
