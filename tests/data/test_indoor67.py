from pathlib import Path

import pytest

from castream_jax.data import Indoor67


@pytest.fixture
def rooms(tmp_path: Path, save_jpeg, write) -> Path:
    """Images/<scene>/…, TrainImages.txt and TestImages.txt, as the authors publish them."""
    for file in ("bar/b1.jpg", "bar/b2.jpg", "airport_inside/a1.jpg", "airport_inside/unlisted.jpg"):
        save_jpeg(tmp_path / "Images" / file)
    write(tmp_path / "TrainImages.txt", "bar/b2.jpg\nairport_inside/a1.jpg")  # the last line has no end
    write(tmp_path / "TestImages.txt", "bar/b1.jpg\n")
    return tmp_path


def test_lists_decide_and_classes_are_alphabetical(rooms):
    train, test = Indoor67(rooms, "train"), Indoor67(rooms, "test")
    assert train.class_names == test.class_names == ("airport_inside", "bar")
    assert [(train.name(i), int(train[i]["label"])) for i in range(len(train))] == [
        ("Images/bar/b2.jpg", 1),
        ("Images/airport_inside/a1.jpg", 0),
    ]
    assert [(test.name(0), int(test[0]["label"]), len(test))] == [("Images/bar/b1.jpg", 1, 1)]


def test_missing_list_and_images_are_named(rooms):
    (rooms / "Images/bar/b2.jpg").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"^1 of 2 images listed in TrainImages.txt are missing .*: bar/b2.jpg;"
    ):
        Indoor67(rooms, "train")
    (rooms / "TestImages.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"TestImages.txt' is missing, which lists the test images"):
        Indoor67(rooms, "test")
    with pytest.raises(ValueError, match=r"^unknown split 'val' of MIT-67; choose one of train, test$"):
        Indoor67(rooms, "val")
