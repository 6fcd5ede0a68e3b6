"""The training split numbers the classes: other splits are matched by name, or refused."""

from pathlib import Path
import pickle
import unicodedata

import numpy as np
from PIL import Image
import pytest

from castream_jax.cli import main
from castream_jax.data import ImageFolder, Subset
from castream_jax.data.renumbered import check_class_names, classes_without_images, numbered_as, numbering

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def folder(root: Path, split: str, names: tuple[str, ...], count: int = 2) -> ImageFolder:
    for name in names:
        (root / split / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8)).save(root / split / name / f"{number}.png")
    return ImageFolder(root, split)


class Tagged:
    """A multi-label source of two classes, as a plugin's may be: without `open` and `labels`."""

    class_names = ("dog", "cat")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict:
        target = np.eye(2, dtype=np.float32)[index]
        mask = np.array([True, index == 0])
        return {"pixels": np.zeros((2, 2, 3), np.uint8), "label": np.int32(index), "index": index} | {
            "target": target, "target_mask": mask
        }  # fmt: skip

    def name(self, index: int) -> str:
        return str(index)


def test_classes_keep_the_training_numbers_where_the_split_lacks_one(tmp_path: Path):
    train = folder(tmp_path, "train", ("apple", "banana", "cherry"))
    test = numbered_as(folder(tmp_path, "test", ("apple", "cherry")), train.class_names, "test")
    assert test.class_names == ("apple", "banana", "cherry")
    assert [int(test[i]["label"]) for i in range(len(test))] == [0, 0, 2, 2]
    assert test.name(3) == "test/cherry/1.png"
    assert classes_without_images(test) == ["banana"]
    assert classes_without_images(train) == []
    share = Subset(pickle.loads(pickle.dumps(test)), [1, 2])  # worker processes get a copy
    assert [int(share.open(i)["label"]) for i in range(2)] == [0, 2]
    assert classes_without_images(share) == ["banana"]


def test_equal_names_are_the_source_itself(tmp_path: Path):
    train = folder(tmp_path, "train", ("a", "b"))
    assert numbered_as(train, ("a", "b"), "test") is train


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("apple", "Banana", "cherry"), r"'Banana' \(did you mean 'banana'\?\)\. The training data numbers"),
        (("apple", "cherry", "date"), r"^The split has classes that are none of the 3 .* data: 'date'\."),
        (("p", "q", "r", "s", "t"), r"data: 'p', 'q', 'r' and 2 more\."),
    ],
)
def test_classes_that_the_training_data_lacks_are_refused_by_name(tmp_path: Path, names, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        numbered_as(folder(tmp_path, "test", names), ("apple", "banana", "cherry"), "The split")


def test_a_name_that_unicode_writes_in_two_ways_is_one_name(tmp_path: Path):
    """`café` sorts before or behind `cafz`, depending on how it is written."""
    train = folder(tmp_path, "train", (NFD, "cafz"))
    test = folder(tmp_path, "test", (NFC, "cafz"))
    assert [list(source.class_names).index("cafz") for source in (train, test)] == [1, 0]
    test = numbered_as(test, train.class_names, "test")
    assert [int(test[i]["label"]) for i in range(4)] == [1, 1, 0, 0]
    assert test.class_names == train.class_names
    with pytest.raises(ValueError, match=r"called 'café', which Unicode writes in two ways \('cafe\\u0301' and 'caf\\"):
        check_class_names((NFD, NFC))
    check_class_names(("crane", "crane"))  # ImageNet has two


def test_names_that_occur_twice_keep_their_places_or_are_refused():
    class Cranes(Tagged):
        class_names = ("crane", "crane")

    assert numbered_as(Cranes(), ("crane", "crane"), "test").class_names == ("crane", "crane")
    with pytest.raises(ValueError, match="matched with the training data by name: there, several classes have"):
        numbered_as(Cranes(), ("cow", "crane", "crane"), "test")


def test_targets_of_several_labels_move_along():
    source = numbered_as(Tagged(), ("cat", "cow", "dog"), "test")
    first, second = dict(source[0]), dict(source[1])
    np.testing.assert_array_equal(first["target"], [0, 0, 1])
    np.testing.assert_array_equal(second["target"], [1, 0, 0])
    np.testing.assert_array_equal(second["target_mask"], [False, False, True])
    assert [int(source[i]["label"]) for i in range(2)] == [2, 0]
    assert classes_without_images(source) == ["cow"]


def test_folders_called_by_numbers_that_are_not_theirs_are_told():
    names = sorted(map(str, range(1, 13)))
    note = "class numbers are not the names (these sort as text): class 0 is '1', class 1 is '10', class 2 is '11'"
    assert numbering(names).startswith(note)

    assert numbering(tuple("0123456789")) == numbering(("cat", "dog")) == ""


def test_data_check_matches_splits_and_tells_the_numbering(tmp_path: Path, capsys):
    folder(tmp_path, "train", ("1", "10", "2"))
    folder(tmp_path, "val", ("1", "2"))
    command = ["data", "check", "image_folder", "--path", str(tmp_path), "--sample", str(tmp_path / "s")]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "class 0 is '1', class 1 is '10'" in out
    assert "1 classes have no image: 10" in out
    folder(tmp_path, "test", ("1", "20"))
    assert main([*command, "--split", "test"]) == 2
    assert "The split 'test' of" in (error := capsys.readouterr().err)
    assert "none of the 3 classes of the training data: '20'" in error
