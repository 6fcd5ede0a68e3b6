# Every record here has a box:
# pyright: reportTypedDictNotRequiredAccess=false

from pathlib import Path
import re

import numpy as np
import pytest

from castream_jax.data import Cub


@pytest.fixture
def birds(tmp_path: Path, save_jpeg, write) -> Path:
    """Three images of two species, in the layout of CUB_200_2011.tgz."""
    root = tmp_path / "CUB_200_2011"
    files = [
        "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg",
        "001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.jpg",
        "002.Laysan_Albatross/Laysan_Albatross_0002_1027.jpg",
    ]
    for file in files:
        save_jpeg(root / "images" / file)
    write(root / "images.txt", "".join(f"{i} {file}\n" for i, file in enumerate(files, 1)))
    write(root / "image_class_labels.txt", "1 1\n2 1\n3 2\n")
    write(root / "classes.txt", "1 001.Black_footed_Albatross\n2 002.Laysan_Albatross\n")
    write(root / "train_test_split.txt", "1 0\n2 1\n3 1\n")
    write(root / "bounding_boxes.txt", "1 6.0 2.0 12.0 10.0\n2 0.0 1.0 20.0 15.0\n3 3.5 4.0 8.0 9.0\n")
    return root


def test_splits_labels_boxes_and_names(birds):
    train, test = Cub(birds, "train"), Cub(birds, "test")
    assert (len(train), len(test)) == (2, 1)
    assert train.class_names == ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    assert [int(train[i]["label"]) for i in range(2)] == [0, 1]
    assert train.name(1) == "images/002.Laysan_Albatross/Laysan_Albatross_0002_1027.jpg"
    assert test[0]["box"].tolist() == [6, 2, 18, 12]  # x, y, width, height in the file
    assert train[1]["box"].tolist() == [3.5, 4, 11.5, 13]
    assert train[1]["box"].dtype == np.float32
    assert (train[0]["pixels"].shape, train[0]["label"].dtype, train[1]["index"]) == ((20, 30, 3), np.int32, 1)


def test_the_folder_it_lies_in_will_do(birds):
    assert Cub(birds.parent, "test").name(0) == Cub(birds, "test").name(0)


@pytest.mark.parametrize("file", ["images.txt", "classes.txt", "bounding_boxes.txt", "train_test_split.txt"])
def test_a_missing_list_is_named(birds, file):
    (birds / file).unlink()
    with pytest.raises(FileNotFoundError, match=rf"^'{re.escape(str(birds / file))}' is missing, which lists the "):
        Cub(birds, "train")


def test_missing_images_are_counted_and_named(birds):
    (birds / "images/002.Laysan_Albatross/Laysan_Albatross_0002_1027.jpg").unlink()
    sentence = (
        f"1 of 2 images listed in images.txt are missing in '{birds / 'images'}': "
        "002.Laysan_Albatross/Laysan_Albatross_0002_1027.jpg; unpack the dataset again"
    )
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(sentence)}$"):
        Cub(birds, "train")


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("images.txt", "", "is empty, which should list the images"),
        ("images.txt", "1\n", "line 1 of .*images.txt' has 1 fields, not 2"),
        ("train_test_split.txt", "1 0\n2 0\n3 0\n", "names no train image"),
        ("bounding_boxes.txt", "1 1 1 1 1\n", "do not fit together: one has no row '2'"),
    ],
)
def test_damaged_lists_are_explained(birds, file, text, sentence):
    (birds / file).write_text(text)
    with pytest.raises(ValueError, match=sentence):
        Cub(birds, "train")


def test_unknown_split_names_the_known_ones(birds):
    with pytest.raises(ValueError, match=r"^unknown split 'val' of CUB-200-2011; choose one of train, test$"):
        Cub(birds, "val")
