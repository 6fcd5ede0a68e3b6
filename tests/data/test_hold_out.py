import numpy as np
import pytest

from castream_jax.data import ImageFolder, Squash, eval_loader, open_source
from castream_jax.data.hold_out import hold_out
from castream_jax.experiment.config import base_config


@pytest.fixture
def flat_tree(tmp_path, save_jpeg):
    """`train` with ten images of one class, two of another and one of a third; no `test`."""
    for label, count in {"many": 10, "two": 2, "one": 1}.items():
        for number in range(count):
            save_jpeg(tmp_path / "train" / label / f"{number}.jpg")
    return tmp_path


def _config(path, **fields):
    config = base_config()
    config.data.update(path=str(path), **fields)
    return config.data


def test_a_fraction_of_each_class_is_held_out_and_the_parts_are_disjoint(flat_tree):
    config = _config(flat_tree, test_fraction=0.3)
    train, test = open_source(config, "train"), open_source(config, "test")
    names = [{source.name(i) for i in range(len(source))} for source in (train, test)]
    assert names[0] | names[1] == {str(p.relative_to(flat_tree)) for p in flat_tree.rglob("*.jpg")}
    assert not names[0] & names[1]
    assert train.class_names == test.class_names == ("many", "one", "two")
    count = [
        [sum(name.startswith(f"train/{label}/") for name in side) for label in train.class_names] for side in names
    ]
    assert count == [[7, 1, 1], [3, 0, 1]]
    again = open_source(config, "test")
    assert [again.name(i) for i in range(len(again))] == [test.name(i) for i in range(len(test))]


def test_records_of_a_part_are_numbered_from_0(flat_tree):
    test = hold_out(ImageFolder(flat_tree, "train"), 0.3, True, field="test_fraction")
    (batch,) = eval_loader(test, batch_size=4, transforms=[Squash(8)])
    assert batch["index"].tolist() == [0, 1, 2, 3]
    assert batch["label"].tolist() == test.labels.tolist() == [0, 0, 0, 2]
    assert test[3]["index"] == 3
    np.testing.assert_array_equal(test[3]["pixels"], test.open(3)["pixels"].pixels())


def test_a_missing_test_split_names_the_option(flat_tree):
    with pytest.raises(
        FileNotFoundError, match=r"there are train; --config\.data\.test_fraction=0\.2 tests on a fifth"
    ):
        open_source(_config(flat_tree), "test")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"test_fraction": 1.5}, "test_fraction is 1.5; it must lie between 0 and 1"),
        ({"test_fraction": 0.5, "source": "voc"}, "'voc' has one"),
        ({"test_fraction": 0.5, "source": "digits"}, "'digits' has one"),
    ],
)
def test_bad_fractions_are_explained(flat_tree, numbered, fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        open_source(_config(flat_tree, **fields), "test")
    with pytest.raises(ValueError, match="needs the labels of all images beforehand, which Numbered does not have"):
        hold_out(numbered(3), 0.5, True, field="test_fraction")
