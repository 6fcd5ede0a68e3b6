import re

from ml_collections import ConfigDict
import numpy as np
from PIL import Image
import pytest

from castream_jax.data import (
    BrightnessJitter,
    CanvasDigits,
    CenterCrop,
    Cifar10,
    ImageFolder,
    RandomCrop,
    RandomFlip,
    RandomResizedCrop,
    Squash,
    Subset,
    TfdsSource,
    UnreadableImageError,
    Voc,
    open_source,
    record_transforms,
)
from castream_jax.data.named_sources import SOURCES, RegisteredSource


def _config(**fields) -> ConfigDict:
    defaults = {
        "source": "digits",
        "path": "",
        "train_split": "train",
        "test_split": "test",
        "canvases_per_digit": 2,
        "image_size": 64,
        "seed": 0,
        "resize": "none",
        "flip": False,
        "random_resized_crop": False,
        "crop_padding": 0,
        "brightness": 0.0,
        "draft": False,
        "exif_orientation": False,
        "max_pixels": 0,
    }
    return ConfigDict(defaults | fields)


def test_digits_show_training_digits_several_times_and_test_digits_once():
    config = _config(image_size=48)
    train, test = open_source(config, "train"), open_source(config, "test")
    assert isinstance(train, CanvasDigits)
    assert (len(train), len(test)) == (2 * 1438, 359)
    assert train[0]["pixels"].shape == (48, 48, 3)


def test_seed_of_the_config_reaches_the_digits():
    first, second = (open_source(_config(seed=seed), "test")[0]["pixels"] for seed in (1, 2))
    assert (first != second).any()


@pytest.mark.parametrize(("split", "prefix"), [("train", "train/"), ("test", "test/")])
def test_image_folder_reads_the_named_split(image_tree, split, prefix):
    source = open_source(_config(source="image_folder", path=str(image_tree)), split)
    assert isinstance(source, ImageFolder)
    assert source.name(0).startswith(prefix)


def test_splits_may_have_other_names(image_tree):
    (image_tree / "test").rename(image_tree / "val")
    config = _config(source="image_folder", path=str(image_tree), test_split="val")
    assert open_source(config, "test").name(0) == "val/cat/x.png"


def test_tfds_is_opened_with_path_and_split(monkeypatch):
    opened = []
    monkeypatch.setattr(TfdsSource, "__init__", lambda self, *arguments: opened.append(arguments))
    monkeypatch.setattr(TfdsSource, "class_names", ())
    source = open_source(_config(source="tfds", path="/data/cifar10/3.0.2", train_split="train[:90%]"), "train")
    assert isinstance(source, TfdsSource)
    assert opened == [("/data/cifar10/3.0.2", "train[:90%]")]


def test_unknown_source_names_the_known_ones():
    known = "image_folder, imagenet, cub, indoor67, cifar10, tfds, voc, digits, prepared"
    for name, hint in {"imagnet": "did you mean 'imagenet'? There are", "xyz": "choose one of"}.items():
        sentence = re.escape(f"unknown data source '{name}'; {hint} {known}")
        with pytest.raises(ValueError, match=f"^{sentence}$"):
            open_source(_config(source=name), "train")


def test_cifar10_is_read_from_its_binary_or_from_a_tree(image_tree, tmp_path):
    config = _config(source="cifar10", path=str(image_tree))
    assert isinstance(open_source(config, "train"), ImageFolder)
    (tmp_path / "batches.meta.txt").write_text("airplane\n")
    (tmp_path / "test_batch.bin").write_bytes(bytes(3073))
    assert isinstance(open_source(config, "test"), Cifar10)


def test_voc_gives_images_for_training_and_pairs_for_testing(monkeypatch):
    opened = []
    monkeypatch.setattr(Voc, "__init__", lambda self, *arguments: opened.append(arguments))
    monkeypatch.setattr(Voc, "class_names", ())
    config = _config(source="voc", path="VOC2012", test_split="val", difficult="count")
    for split, rows in (("train", None), ("test", None), ("test", "images")):
        open_source(config, split, rows)
    assert opened == [
        ("VOC2012", "train", "images", "count"),
        ("VOC2012", "val", "pairs", "count"),
        ("VOC2012", "val", "images", "count"),
    ]


def test_unknown_split_names_the_known_ones():
    with pytest.raises(ValueError, match=r"^unknown split 'val'; choose 'train', 'validation' or 'test'$"):
        open_source(_config(), "val")


@pytest.mark.parametrize(
    ("fields", "train", "expected"),
    [
        ({"resize": "none"}, True, []),
        ({"resize": "squash", "image_size": 224}, False, [Squash(224)]),
        ({"resize": "center_crop", "image_size": 224}, False, [CenterCrop(resize=256, size=224)]),
        ({"flip": True, "crop_padding": 4}, True, [RandomFlip(), RandomCrop(4)]),
        ({"flip": True, "crop_padding": 4, "resize": "squash"}, True, [Squash(64), RandomFlip(), RandomCrop(4)]),
        ({"flip": True, "crop_padding": 4, "resize": "squash"}, False, [Squash(64)]),
        ({"crop_padding": 4}, True, [RandomCrop(4)]),
        ({"resize": "squash", "random_resized_crop": True}, True, [RandomResizedCrop(64)]),
        ({"resize": "center_crop", "random_resized_crop": True}, False, [CenterCrop(resize=73, size=64)]),
        ({"resize": "none", "random_resized_crop": True, "brightness": 0.4}, True, [BrightnessJitter(0.4)]),
        ({"resize": "squash", "random_resized_crop": True, "draft": True}, True, [RandomResizedCrop(64, draft=True)]),
        ({"resize": "squash", "draft": True}, True, [Squash(64, draft=True)]),
        ({"resize": "squash", "draft": True}, False, [Squash(64)]),
    ],
)
def test_transforms_of_a_config(fields, train, expected):
    assert record_transforms(_config(**fields), train) == expected


def test_unknown_resize_names_the_known_ones():
    sentence = "unknown resize 'pad'; choose one of squash, center_crop, none"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        record_transforms(_config(resize="pad"), train=False)


def test_files_are_decoded_as_the_config_says_and_messages_name_its_fields(image_tree):
    path = image_tree / "train" / "cat" / "x.png"
    exif = Image.Exif()
    exif[274] = 6
    pixels = np.asarray(Image.open(path))
    Image.fromarray(pixels).save(path, exif=exif)
    fields = {"source": "image_folder", "path": str(image_tree)}
    np.testing.assert_array_equal(open_source(_config(**fields), "train")[0]["pixels"], pixels)
    upright = open_source(_config(**fields, exif_orientation=True), "train")
    np.testing.assert_array_equal(upright[0]["pixels"], np.rot90(pixels, -1))
    path.write_bytes(b"")
    with pytest.raises(UnreadableImageError, match=r"\(it is empty\); .* with --config\.data\.on_error=skip$"):
        open_source(_config(**fields), "train")[0]


def test_an_option_without_effect_is_refused(tmp_path, save_jpeg, write, monkeypatch):
    arrays = RegisteredSource(lambda path, split: Subset(CanvasDigits("test"), [0]), ("train",))
    monkeypatch.setitem(SOURCES, "arrays", arrays)
    for field in ({"exif_orientation": True}, {"max_pixels": 9}):
        with pytest.raises(ValueError, match=f"data.{next(iter(field))} has no effect on source 'arrays'"):
            open_source(_config(source="arrays", **field), "train")
    for name, text in {
        "images.txt": "1 a.jpg", "train_test_split.txt": "1 1", "image_class_labels.txt": "1 1",
        "classes.txt": "1 bird", "bounding_boxes.txt": "1 0 0 5 5",
    }.items():  # fmt: skip
        write(tmp_path / name, text + "\n")
    save_jpeg(tmp_path / "images" / "a.jpg")
    with pytest.raises(ValueError, match="turns images and not their boxes, and source 'cub' has boxes"):
        open_source(_config(source="cub", path=str(tmp_path), exif_orientation=True), "train")
