"""Worker processes, and images that cannot be read: whatever happens, nothing is lost, changed or silently counted."""

from pathlib import Path

import grain
import numpy as np
import pytest

from castream_jax.data import (
    CanvasDigits,
    ImageFolder,
    RandomCrop,
    RandomFlip,
    Squash,
    Subset,
    UnreadableImageError,
    describe_unreadable,
    eval_loader,
    train_loader,
)

AUGMENT = (Squash(6), RandomFlip(), RandomCrop(4))


def _assert_same(batches, expected):
    assert len(batches) == len(expected)
    for batch, other in zip(batches, expected, strict=True):
        assert set(batch) == set(other)
        for key, rows in batch.items():
            np.testing.assert_array_equal(rows, other[key])


@pytest.fixture
def damaged(image_tree) -> Path:
    """train/ with cat x, y, z and dog a, b, of which cat/y is cut short and dog/b is no image."""
    broken = image_tree / "train" / "cat" / "y.png"
    broken.write_bytes(broken.read_bytes()[:60])
    (image_tree / "train" / "dog" / "b.png").write_bytes(b"this is no image")
    return image_tree


@pytest.mark.slow
def test_worker_processes_change_nothing_and_any_number_of_them_resumes(image_tree):
    options = {"batch_size": 3, "num_epochs": 6, "seed": 1, "transforms": AUGMENT, "num_threads": 1}

    def iterator(workers):
        return iter(train_loader(ImageFolder(image_tree, "train"), num_workers=workers, **options))

    alone = list(iterator(0))
    assert len(alone) == 10
    with_workers = iterator(2)
    first = [next(with_workers) for _ in range(3)]
    state = with_workers.get_state()
    assert state == {"next_batch": 3, "num_workers": 2, "unreadable": []}
    _assert_same(first + list(with_workers), alone)
    with_workers.close()
    resumed = iterator(0)
    resumed.set_state(state)
    _assert_same(list(resumed), alone[3:])


@pytest.mark.slow
def test_worker_processes_report_unreadable_images(damaged):
    source = ImageFolder(damaged, "train")
    batches = iter(eval_loader(source, batch_size=2, transforms=[Squash(6)], num_workers=1, on_error="skip"))
    assert [batch["mask"].tolist() for batch in batches] == [[True, False], [True, True], [False, False]]
    assert batches.unreadable == ("train/cat/y.png", "train/dog/b.png")
    batches.close()
    stopping = iter(eval_loader(source, batch_size=2, transforms=[Squash(6)], num_workers=1))
    with pytest.raises(ValueError, match=r"cannot read image .*cat/y\.png"):
        next(stopping)
    stopping.close()


def test_an_end_reached_is_an_end_after_resuming(numbered):
    loader = train_loader(numbered(8), batch_size=4, num_epochs=1, seed=0, num_workers=3)
    iterator = iter(loader)
    iterator.set_state({"next_batch": len(loader), "num_workers": 0, "unreadable": []})
    assert list(iterator) == []


def test_training_replaces_an_unreadable_image_by_the_next_one_and_reports_it(damaged):
    source = ImageFolder(damaged, "train")
    options = {"batch_size": 5, "num_epochs": 2, "seed": 0, "transforms": [Squash(6)], "on_error": "skip"}
    batches = iter(train_loader(source, **options))
    shown = {Squash(6).map(source[index])["pixels"].tobytes(): index for index in (0, 2, 3)}
    for batch in batches:
        assert set(batch) == {"pixels", "label"}
        indices = [shown[pixels.tobytes()] for pixels in batch["pixels"]]
        assert sorted(indices) == [0, 0, 2, 2, 3]  # 1 became 2; 4, the last one, became 0
        assert batch["label"].tolist() == [0 if index < 3 else 1 for index in indices]
    assert sorted(batches.unreadable) == ["train/cat/y.png", "train/dog/b.png"]
    state = batches.get_state()
    assert state["unreadable"] == [1, 4]
    _assert_same(list(train_loader(source, **options)), list(train_loader(source, **options, num_threads=0)))
    resumed = iter(train_loader(source, **options))
    resumed.set_state({**state, "next_batch": 1})
    assert sorted(resumed.unreadable) == ["train/cat/y.png", "train/dog/b.png"]


def test_evaluation_masks_an_unreadable_image_out_and_reports_it(damaged):
    source = Subset(ImageFolder(damaged, "train"), [4, 3, 1, 0])
    batches = iter(eval_loader(source, batch_size=3, transforms=[Squash(6)], on_error="skip"))
    first, last = batches
    assert first["mask"].tolist() == [False, True, False]
    assert first["index"].tolist() == [4, 3, 1]  # of the whole source; padding has -1
    assert not first["pixels"][[0, 2]].any()
    assert first["label"].tolist() == [0, 1, 0]
    assert (last["mask"].tolist(), last["index"].tolist()) == ([True, False, False], [0, -1, -1])
    assert batches.unreadable == ("train/dog/b.png", "train/cat/y.png")
    assert describe_unreadable(batches.unreadable) == (
        "2 unreadable images were skipped: train/dog/b.png, train/cat/y.png"
    )


def test_a_batch_of_nothing_but_an_unreadable_image_has_the_shape_of_the_others(damaged):
    loader = eval_loader(ImageFolder(damaged, "train"), batch_size=1, transforms=[Squash(6)], on_error="skip")
    assert [batch["pixels"].shape for batch in loader] == [(1, 6, 6, 3)] * 5


def test_boxes_of_unreadable_images_are_zero(numbered):
    class Damaged(numbered):
        def __getitem__(self, index):
            if index == 1:
                raise UnreadableImageError("cannot read image 1")
            return super().__getitem__(index)

    (batch,) = eval_loader(Damaged(3, with_box=True), batch_size=3, on_error="skip")
    assert batch["box"].tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [2, 0, 3, 1]]


def test_unreadable_images_without_end_stop_all_the_same(image_tree):
    for file in (image_tree / "train").rglob("*.png"):
        file.write_bytes(b"")
    loader = train_loader(ImageFolder(image_tree, "train"), batch_size=5, num_epochs=1, seed=0, on_error="skip")
    with pytest.raises(UnreadableImageError, match=r"5 images in a row are unreadable: cannot read image"):
        list(loader)


def test_multi_label_targets_are_batched(numbered):
    class Tagged(numbered):
        def __getitem__(self, index):
            target = np.array([index % 2, index % 3 == 0], np.float32)
            return super().__getitem__(index) | {"target": target, "target_mask": target < 5}

    (batch,) = eval_loader(Tagged(3), batch_size=4)
    assert batch["target"].tolist() == [[0, 1], [1, 0], [0, 0], [0, 0]]
    assert batch["target_mask"].tolist() == [[True, True]] * 3 + [[False, False]]
    (batch,) = train_loader(Tagged(3), batch_size=3, num_epochs=1, seed=0)
    for label, target in zip(batch["label"], batch["target"], strict=True):
        assert target.tolist() == [label % 2, label % 3 == 0]
    assert (batch["target"].dtype, batch["target_mask"].dtype) == (np.float32, np.bool_)


def test_a_transform_of_ones_own_is_given_arrays(image_tree):
    shapes = []

    class Look(grain.transforms.Map):
        def map(self, element):
            shapes.append((type(element["pixels"]), element["pixels"].shape))
            return element

    list(eval_loader(ImageFolder(image_tree, "train"), batch_size=5, transforms=[Look(), Squash(4), Look()]))
    assert set(shapes) == {(np.ndarray, (5, 7, 3)), (np.ndarray, (4, 4, 3))}


@pytest.mark.usefixtures("unchecked_calls")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"on_error": "ignore"}, "on_error is 'ignore'; choose 'stop' or 'skip'"),
        ({"num_workers": -1}, "num_workers is -1; it cannot be negative"),
    ],
)
def test_bad_arguments_are_explained(arguments, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        eval_loader(CanvasDigits("test"), batch_size=4, **arguments)


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({"next_index": 3}, "is of another version of this library"),
        ({"next_batch": 99, "num_workers": 0, "unreadable": []}, "is batch 99, and there are 2: the data or the batch"),
    ],
)
def test_a_state_that_cannot_be_is_refused(numbered, state, sentence):
    with pytest.raises(ValueError, match=sentence):
        iter(train_loader(numbered(8), batch_size=4, num_epochs=1, seed=0)).set_state(state)
