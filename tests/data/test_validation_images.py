"""Images to validate on are no images to train on, the same ones in every run, of every class."""

# pyright: reportAttributeAccessIssue=false

from collections import Counter
from pathlib import Path

import pytest

from castream_jax.data import open_source
from castream_jax.experiment.config import Config, base_config


def labels_and_names(data: Config, split: str) -> tuple[Counter, set[str]]:
    source = open_source(data, split)
    return Counter(source.labels.tolist()), {source.name(i) for i in range(len(source))}


@pytest.fixture
def folders(tmp_path: Path) -> Config:
    for name, count in {"a": 10, "b": 5, "c": 1}.items():
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(count):
            (tmp_path / "train" / name / f"{number}.png").touch()
    data = base_config().data
    data.update(path=str(tmp_path), validation_fraction=0.2)
    return data


def test_a_fraction_of_every_class_is_kept_out_of_the_training(folders: Config):
    (train, trained), (held, validated) = (labels_and_names(folders, split) for split in ("train", "validation"))
    assert train == {0: 8, 1: 4, 2: 1}
    assert held == {0: 2, 1: 1}  # the only image of a class is trained on
    assert not trained & validated
    assert labels_and_names(folders, "validation")[1] == validated
    folders.seed = 3
    assert labels_and_names(folders, "validation")[1] != validated


def test_test_and_validation_images_are_held_out_beside_each_other(folders: Config):
    folders.test_fraction = 0.2
    parts = [labels_and_names(folders, split) for split in ("train", "validation", "test")]
    assert [part[0][0] for part in parts] == [6, 2, 2]
    assert len(set.union(*(part[1] for part in parts))) == 16


def test_all_canvases_of_a_digit_are_on_one_side():
    data = base_config().data
    data.update(source="digits", canvases_per_digit=3, image_size=32, validation_fraction=0.1)
    train, validation = (open_source(data, split) for split in ("train", "validation"))
    digits = [{int(source.name(i).split("/")[-1]) % 1438 for i in range(len(source))} for source in (train, validation)]
    assert not digits[0] & digits[1]
    assert len(digits[0]) + len(digits[1]) == 1438
    assert (len(train), len(validation)) == (3 * len(digits[0]), len(digits[1]))


def test_what_cannot_be_held_out_is_told(folders: Config):
    folders.validation_split = "val"
    with pytest.raises(
        ValueError, match=r"validation_split='val' and config.data.validation_fraction=0.2 exclude each other"
    ):
        open_source(folders, "train")
    folders.update(validation_split="", validation_fraction=1.5)
    with pytest.raises(ValueError, match=r"validation_fraction is 1.5; it must lie between 0 and 1"):
        open_source(folders, "train")
    folders.validation_fraction = 0.0
    with pytest.raises(ValueError, match=r"there is nothing to validate on: set config.data.validation_fraction"):
        open_source(folders, "validation")
