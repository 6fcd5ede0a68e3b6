"""Opens what an experiment's `config.data` describes."""

from typing import Any

from castream_jax.data.digits import CanvasDigits
from castream_jax.data.loader import Transform
from castream_jax.data.sources import ImageFolder, Source, TfdsSource
from castream_jax.data.transforms import CenterCrop, RandomCrop, RandomFlip, Squash

DataConfig = Any  # an ml_collections.ConfigDict, whose fields have no static type

SOURCES = ("image_folder", "tfds", "digits")
RESIZES = ("squash", "center_crop", "none")


def open_source(data_config: DataConfig, split: str) -> Source:
    """The training or the test data of an experiment.

    Args:
        data_config: `source` is one of `SOURCES`. "image_folder" and "tfds" read `path`, `train_split` and
            `test_split`; "digits" reads `canvases_per_digit` (of the training split: a test digit is always
            shown once), `image_size` and `seed`.
        split: "train" or "test".

    Raises:
        ValueError: the source or the split is unknown.
        FileNotFoundError: there is no such data.
    """
    if split not in ("train", "test"):
        raise ValueError(f"unknown split '{split}'; choose 'train' or 'test'")
    if data_config.source == "digits":
        canvases = data_config.canvases_per_digit if split == "train" else 1
        return CanvasDigits(split, canvases, canvas_size=data_config.image_size, seed=data_config.seed)
    if data_config.source in ("image_folder", "tfds"):
        source_type = ImageFolder if data_config.source == "image_folder" else TfdsSource
        return source_type(data_config.path, data_config[f"{split}_split"])
    raise ValueError(f"unknown data source '{data_config.source}'; choose one of {', '.join(SOURCES)}")


def record_transforms(data_config: DataConfig, train: bool) -> list[Transform]:
    """The transforms of each record: resizing, then, for training only, augmentation.

    Args:
        data_config: `resize` is one of `RESIZES`; `image_size` is the side of the result in pixels
            ("center_crop" first brings the shorter side to 8/7 of it, 256 for 224); `flip` mirrors half of
            the images; `crop_padding` shifts them by up to so many pixels.
        train: whether to augment.

    Raises:
        ValueError: the way of resizing is unknown.
    """
    size = data_config.image_size
    transforms: list[Transform] = []
    if data_config.resize == "squash":
        transforms.append(Squash(size))
    elif data_config.resize == "center_crop":
        transforms.append(CenterCrop(resize=size * 8 // 7, size=size))
    elif data_config.resize != "none":
        raise ValueError(f"unknown resize '{data_config.resize}'; choose one of {', '.join(RESIZES)}")
    if train and data_config.flip:
        transforms.append(RandomFlip())
    if train and data_config.crop_padding:
        transforms.append(RandomCrop(data_config.crop_padding))
    return transforms
