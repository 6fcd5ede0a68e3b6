"""Opens what an experiment's `config.data` describes."""

from collections.abc import Sequence
import json
from pathlib import Path
from typing import Any, Literal

from castream_jax.data.augment import BrightnessJitter, RandomCrop, RandomFlip, RandomResizedCrop
from castream_jax.data.batches import Batches
from castream_jax.data.cifar10 import Cifar10, binary_folder
from castream_jax.data.cub import Cub
from castream_jax.data.decode import Decoding
from castream_jax.data.digits import CanvasDigits
from castream_jax.data.hold_out import hold_out
from castream_jax.data.image_folder import ImageFolder
from castream_jax.data.imagenet import ImageNet, imagenet_folder
from castream_jax.data.indoor67 import Indoor67
from castream_jax.data.loader import eval_loader
from castream_jax.data.named_sources import SOURCES, check_source, register_source
from castream_jax.data.prepared_bucket import local_manifest
from castream_jax.data.prepared_files import read_manifest
from castream_jax.data.prepared_source import PreparedSource, check_fits
from castream_jax.data.reader import Transform
from castream_jax.data.renumbered import numbered_as
from castream_jax.data.source import Source
from castream_jax.data.tfds_source import TfdsSource
from castream_jax.data.transforms import CenterCrop, IntoSquare, Squash
from castream_jax.data.voc import Voc
from castream_jax.runtime.devices import available_cores

DataConfig = Any  # an ml_collections.ConfigDict, whose fields have no static type

register_source("image_folder")(ImageFolder)
register_source("imagenet")(ImageNet)
register_source("cub")(Cub)
register_source("indoor67")(Indoor67)
register_source("cifar10")(lambda path, split: (Cifar10 if binary_folder(path) else ImageFolder)(path, split))
register_source("tfds")(TfdsSource)
_OURS = (*SOURCES, "voc", "prepared")  # read a path; a plugin's source need not

RESIZES = ("squash", "center_crop", "none")


def open_source(
    data_config: DataConfig,
    split: str,
    rows: Literal["images", "pairs"] | None = None,
    class_names: Sequence[str] | None = None,
    *,
    as_it_is: bool = False,
) -> Source:
    """The training, the validation or the test data of an experiment.

    Args:
        data_config: `source` is one of `SOURCES`, "voc", "prepared" or "digits". The last reads `canvases_per_digit`
            (of the training split: any other digit is shown once), `image_size` and `seed`; all others read `path`,
            `train_split` and `test_split`, and "voc" reads `difficult` too. With a `test_fraction` the test data are
            that part of the training split. To validate on are either the `validation_split`, or a
            `validation_fraction` of what is left of the training split. `exif_orientation` and `max_pixels` say how
            image files are decoded.
        split: "train", "validation" or "test".
        rows: what a record of multi-label data is, see `Voc`; by default pairs for testing, else images.
        class_names: of the training data, which number the classes: those of another split are matched by name. By
            default classes have the numbers that they have in this split.
        as_it_is: prepared data may have been prepared for another `resize` or `image_size`.

    Raises:
        ValueError: the source or the split is unknown, there is nothing to validate on, there are classes that
            `class_names` lacks, or images cannot be decoded as `data_config` says.
        FileNotFoundError: there is no such data.
    """
    if split not in ("train", "validation", "test"):
        raise ValueError(f"unknown split '{split}'; choose 'train', 'validation' or 'test'")
    check_source(data_config.source)
    fraction = check_fraction(data_config)
    if split == "test" or not fraction:
        source = _open_split(data_config, split, rows, as_it_is)
    else:
        copies = data_config.canvases_per_digit if data_config.source == "digits" else 1
        training = _open_split(data_config, "train", rows, as_it_is)
        held = split == "validation"
        source = hold_out(
            training, fraction, held, field="validation_fraction", salt=str(data_config.seed), copies=copies
        )
    if class_names is None:
        return source
    return numbered_as(source, class_names, f"The {split} data ({describe_split(data_config, split)})")


def describe_split(data_config: DataConfig, split: str) -> str:
    """Where a split comes from: its name, and the folder."""
    fraction = data_config.get(f"{split}_fraction", 0)
    if fraction:
        return f"{fraction:g} of {describe_split(data_config, 'train')}"
    named = split if data_config.source == "digits" else data_config[f"{split}_split"]
    return f"{data_config.source} {named!r}" + (f" in {data_config.path}" if data_config.get("path") else "")


def check_fraction(data_config: DataConfig) -> float:
    """`validation_fraction`, 0 where there is none; a ValueError beside a `validation_split`."""
    fraction, named = data_config.get("validation_fraction", 0), data_config.get("validation_split", "")
    if fraction and named:
        raise ValueError(
            f"config.data.validation_split={named!r} and config.data.validation_fraction={fraction} exclude each "
            "other: give one"
        )
    return fraction


def _open_split(data_config: DataConfig, split: str, rows: Literal["images", "pairs"] | None, as_it_is: bool) -> Source:
    """A split without what is held out of it for validation."""
    source = data_config.source
    if split == "validation" and not data_config.get("validation_split", ""):
        raise ValueError(
            "there is nothing to validate on: set config.data.validation_fraction, such as 0.1 of the training split, "
            "or config.data.validation_split, the name of a split"
        )
    fraction = data_config.get("test_fraction", 0)
    if fraction and source in ("digits", "voc"):
        raise ValueError(f"config.data.test_fraction is for folders without a test split, and '{source}' has one")
    if source == "digits":
        named = data_config.validation_split if split == "validation" else split
        canvases = data_config.canvases_per_digit if split == "train" else 1
        return CanvasDigits(named, canvases, canvas_size=data_config.image_size, seed=data_config.seed)
    path, named = data_config.path, data_config[f"{split}_split"]
    held = fraction and split in ("train", "test")
    if held:
        named = data_config.train_split
    if source == "voc":
        return _decoded(
            Voc(path, named, rows or ("pairs" if split == "test" else "images"), data_config.difficult), data_config
        )
    try:
        if source == "prepared":
            opened = _open_prepared(data_config, named, rows or ("pairs" if split == "test" else "images"), as_it_is)
        else:
            opened = _decoded(SOURCES[source].open(path, named), data_config)
    except FileNotFoundError as error:
        if source != "image_folder" or split != "test" or Path(path, named).is_dir():
            raise
        hint = "--config.data.test_fraction=0.2 tests on a fifth of the training images"
        raise FileNotFoundError(f"{error}; {hint}") from error
    return hold_out(opened, fraction, split == "test", field="test_fraction") if held else opened


def _open_prepared(data_config: DataConfig, named: str, rows: Literal["images", "pairs"], as_it_is: bool) -> Source:
    source = PreparedSource(data_config.path, named, rows)
    if not as_it_is:
        check_fits(source.split, named, data_config.path, data_config.resize, data_config.image_size)
    return _decoded(source, data_config)


def _decoded(source: Source, data_config: DataConfig) -> Source:
    """`source`, whose files are decoded as `data_config` says."""
    name = data_config.source
    upright, max_pixels = data_config.get("exif_orientation", False), data_config.get("max_pixels", 0)
    if hasattr(source, "decoding"):
        boxes: Any = getattr(source, "boxes", None)
        if upright and (boxes is not None or getattr(source, "has_boxes", False)):
            raise ValueError(f"data.exif_orientation turns images and not their boxes, and source '{name}' has boxes")
        remedy = "replace or remove the file, or pass over such images with --config.data.on_error=skip"
        larger = "read it with --config.data.max_pixels={pixels}, or pass over it with --config.data.on_error=skip"
        files: Any = source
        files.decoding = Decoding(upright, max_pixels, remedy, larger)
    elif upright or max_pixels:
        field = "exif_orientation" if upright else "max_pixels"
        raise ValueError(f"data.{field} has no effect on source '{name}', which decodes its images itself")
    return source


def splits_of(source: str, path: str) -> tuple[str, ...]:
    """The splits that a dataset has by its layout, or, of folder trees and TFDS datasets, those that are there.

    Raises:
        ValueError: the source is unknown, or lacks its path.
    """
    check_source(source)
    if source in _OURS and not path:
        raise ValueError(f"source '{source}' needs a path, the folder of the dataset")
    if source == "tfds":
        info = Path(path) / "dataset_info.json"
        if not info.is_file():
            return ("train",)
        return tuple(split["name"] for split in json.loads(info.read_text(encoding="utf-8"))["splits"])
    if source == "prepared":
        return tuple(read_manifest(local_manifest(path))["splits"])
    if source == "image_folder":
        return tuple(name for name in ("train", "val", "test") if Path(path, name).is_dir()) or ("",)
    if source == "imagenet":
        return tuple(name for name in ("train", "val") if imagenet_folder(Path(path), name)) or ("val",)
    if source in SOURCES:
        return SOURCES[source].splits
    return ("train", "val") if source == "voc" else ("train", "test")


def record_transforms(data_config: DataConfig, train: bool) -> list[Transform]:
    """The transforms of each record: resizing, then, for training only, augmentation.

    Args:
        data_config: `resize` is one of `RESIZES`, `image_size` the side of the result in pixels ("center_crop" first
            brings the shorter side to 8/7 of it, 256 for 224; "none": the images have their size). In training,
            `random_resized_crop` takes the place of "squash" and "center_crop", `flip` mirrors half of the images,
            `crop_padding` shifts them by up to so many pixels, `brightness` multiplies them by a factor within 1 ± it,
            and `draft` allows coarser decoding of JPEGs that are much larger than wanted. With `augment_on_device`
            all that is random is left to the training step, which is told what part of its array an image takes.
        train: whether to augment.

    Raises:
        ValueError: the way of resizing is unknown.
    """
    size, draft = data_config.image_size, train and data_config.draft
    if data_config.resize not in RESIZES:
        raise ValueError(f"unknown resize '{data_config.resize}'; choose one of {', '.join(RESIZES)}")
    on_device = train and data_config.get("augment_on_device", False)
    transforms: list[Transform] = []
    if on_device and data_config.resize != "none" and data_config.random_resized_crop:
        transforms.append(IntoSquare(device_side(data_config), draft))
    elif data_config.resize != "none" and train and data_config.random_resized_crop:
        transforms.append(RandomResizedCrop(size, draft=draft))
    elif data_config.resize == "squash":
        transforms.append(Squash(size, draft))
    elif data_config.resize == "center_crop":
        transforms.append(CenterCrop(resize=size * 8 // 7, size=size, draft=draft))
    if on_device:
        return transforms
    if train and data_config.flip:
        transforms.append(RandomFlip())
    if train and data_config.crop_padding:
        transforms.append(RandomCrop(data_config.crop_padding))
    if train and data_config.brightness:
        transforms.append(BrightnessJitter(data_config.brightness))
    return transforms


def device_side(data_config: DataConfig) -> int:
    """The side of the images that the device crops: `device_side`, or 8/7 of `image_size`, 256 for 224."""
    return data_config.device_side or data_config.image_size * 8 // 7


def reading_options(data_config: DataConfig) -> dict[str, Any]:
    """The arguments of both loaders that say how data is read: threads, worker processes, and unreadable images."""
    options = {name: data_config[name] for name in ("num_threads", "num_workers", "on_error")}
    if options["num_threads"] < 0:
        options["num_threads"] = max(1, available_cores() // max(1, options["num_workers"]))
    return options


def evaluation_batches(data_config: DataConfig, source: Source, batch_size: int) -> Batches:
    """An `eval_loader` over `source`, whose images are transformed and read as `data_config` says."""
    return eval_loader(
        source,
        batch_size=batch_size,
        transforms=record_transforms(data_config, train=False),
        **reading_options(data_config),
    )
