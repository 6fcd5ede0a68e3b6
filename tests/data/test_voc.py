# Records that are asked for a box or a target have one:
# pyright: reportTypedDictNotRequiredAccess=false

from pathlib import Path

import numpy as np
import pytest

from castream_jax.data import Voc

PERSON, DOG, CHAIR = 14, 11, 8


def test_an_image_has_a_target_of_all_its_classes(voc):
    source = Voc(voc.parent.parent, "val")
    assert len(source) == 4
    assert len(source.class_names) == 20
    assert [source.class_names[k] for k in (PERSON, DOG, CHAIR)] == ["person", "dog", "chair"]
    assert [np.flatnonzero(source[i]["target"]).tolist() for i in range(4)] == [[DOG, PERSON], [], [], [CHAIR]]
    # The challenge leaves an image out of the score of a class that it shows only in difficult objects.
    assert [np.flatnonzero(~source[i]["target_mask"]).tolist() for i in range(4)] == [[], [CHAIR], [], []]
    assert [int(source[i]["label"]) for i in range(4)] == [DOG, -1, -1, CHAIR]
    assert (source[0]["target"].dtype, source[0]["target_mask"].dtype) == (np.float32, np.bool_)
    assert source[0]["box"].tolist() == [[0, 1, 10, 20], [3, 4, 6, 7], [2, 2, 9, 9]]  # without the difficult one
    assert not source[1]["box"].any()
    assert source.name(0) == "JPEGImages/2007_000027.jpg"


def test_difficult_objects_count_if_asked_to(voc):
    source = Voc(voc, "val", difficult="count")
    assert [np.flatnonzero(source[i]["target"]).tolist() for i in range(4)] == [[DOG, PERSON], [CHAIR], [], [CHAIR]]
    assert all(source[i]["target_mask"].all() for i in range(4))
    pairs = Voc(voc, "val", "pairs", difficult="count")
    assert [pairs.name(i).split("/")[1] for i in range(len(pairs))] == [
        "2007_000027.jpg:dog",
        "2007_000027.jpg:person",
        "2008_000002.jpg:chair",
        "2008_000007.jpg:chair",
    ]
    assert pairs[1]["box"].tolist() == [[0, 1, 10, 20], [10, 0, 20, 5], [2, 2, 9, 9]]


def test_a_pair_has_the_boxes_of_its_class(voc):
    source = Voc(voc, "val", rows="pairs")
    assert [(source.name(i), int(source[i]["label"]), source[i]["index"]) for i in range(len(source))] == [
        ("JPEGImages/2007_000027.jpg:dog", DOG, 0),
        ("JPEGImages/2007_000027.jpg:person", PERSON, 1),
        ("JPEGImages/2008_000007.jpg:chair", CHAIR, 2),
    ]
    # Coordinates in the file count from 1 and include the last pixel; a row of zeros is no box.
    assert source[0]["box"].tolist() == [[3, 4, 6, 7], [0, 0, 0, 0]]
    assert source[1]["box"].tolist() == [[0, 1, 10, 20], [2, 2, 9, 9]]
    np.testing.assert_allclose(source[2]["box"], [[44.7, 0, 50, 5], [0, 0, 0, 0]], rtol=1e-6)
    assert source[1]["target"].sum() == 2


@pytest.mark.usefixtures("unchecked_calls")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"split": "test"}, r"^Pascal VOC in '.*VOC2012' has no split 'test'; it has train, val$"),
        ({"split": "val", "rows": "objects"}, "unknown rows 'objects' of Pascal VOC; choose 'images' or 'pairs'"),
        ({"split": "val", "difficult": "skip"}, "difficult is 'skip'; choose 'ignore' or 'count'"),
    ],
)
def test_bad_arguments_are_explained(voc, arguments, sentence):
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        Voc(voc, **arguments)


def test_damage_is_named(voc, pascal_xml, tmp_path):
    annotation = voc / "Annotations" / "2008_000007.xml"
    for text, sentence in {
        "<annotation><object>": r"2008_000007.xml' is no annotation of objects \(no element found",
        "<annotation><object><name>dog</name></object></annotation>": "is no annotation of objects",
        pascal_xml(("unicorn", 0, 1, 1, 2, 2)): "shows a 'unicorn', which is none of the 20 classes",
    }.items():
        annotation.write_text(text)
        with pytest.raises(ValueError, match=sentence):
            Voc(voc, "train")
    annotation.unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 1 .* listed in ImageSets/Main/train.txt are missing"):
        Voc(voc, "train")
    with pytest.raises(FileNotFoundError, match="no Pascal VOC in"):
        Voc(tmp_path / "nowhere", "train")


def test_an_image_that_is_listed_twice_is_refused(voc: Path):
    (file,) = voc.rglob("ImageSets/Main/train.txt")
    stem = file.read_text().split()[0]
    file.write_text(f"{file.read_text()}{stem} -1\n")
    with pytest.raises(ValueError, match=rf"train\.txt' lists 1 of its images more than once, such as {stem}: "):
        Voc(voc, "train")
