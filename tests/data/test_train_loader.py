import itertools
import re

import grain
import numpy as np
from PIL import Image
import pytest

from castream_jax.data import CanvasDigits, ImageFolder, RandomCrop, RandomFlip, Squash, train_loader

AUGMENT = (RandomFlip(), RandomCrop(4))


def _assert_same(batches, expected):
    assert len(batches) == len(expected)
    for batch, other in zip(batches, expected, strict=True):
        assert set(batch) == set(other)
        for key, rows in batch.items():
            np.testing.assert_array_equal(rows, other[key])


def test_batches_have_the_declared_form(numbered):
    batch = next(iter(train_loader(numbered(20), batch_size=8, num_epochs=1, seed=0)))
    assert set(batch) == {"pixels", "label"}
    assert (batch["pixels"].shape, batch["pixels"].dtype) == ((8, 2, 2, 3), np.uint8)
    assert (batch["label"].shape, batch["label"].dtype) == ((8,), np.int32)
    np.testing.assert_array_equal(batch["pixels"][:, 0, 0, 0], batch["label"])


def test_batches_cross_epochs_and_lose_no_image(numbered):
    """3 × 10 images in batches of 4: seven batches, and every image in them two or three times."""
    batches = list(train_loader(numbered(10), batch_size=4, num_epochs=3, seed=0))
    assert len(batches) == 3 * 10 // 4
    stream = np.concatenate([batch["label"] for batch in batches])
    assert sorted(stream[:10]) == list(range(10))
    assert sorted(stream[10:20]) == list(range(10))
    assert len(set(stream[20:])) == 8
    assert stream[:10].tolist() != list(range(10))
    assert stream[:10].tolist() != stream[10:20].tolist()


def test_seed_decides_order_and_augmentation():
    def first(seed):
        return next(iter(train_loader(CanvasDigits("test"), batch_size=8, num_epochs=1, seed=seed, transforms=AUGMENT)))

    _assert_same([first(1)], [first(1)])
    assert first(1)["label"].tolist() != first(2)["label"].tolist()


def test_augmentation_differs_between_records_and_epochs(numbered):
    class Edge(numbered):
        """One image whose left half is white."""

        def __getitem__(self, index):
            record = super().__getitem__(index)
            record["pixels"] = np.zeros((2, 2, 3), np.uint8)
            record["pixels"][:, 0] = 255
            return record

    (batch,) = train_loader(Edge(1), batch_size=200, num_epochs=200, seed=0, transforms=[RandomFlip()])
    assert 70 < (batch["pixels"][:, 0, 0, 0] == 0).sum() < 130


@pytest.mark.parametrize("num_threads", [0, 1, 5])
def test_number_of_threads_changes_nothing(num_threads):
    def batches(threads):
        loader = train_loader(
            CanvasDigits("test"), batch_size=16, num_epochs=2, seed=5, transforms=AUGMENT, num_threads=threads
        )
        return list(itertools.islice(loader, 6))

    _assert_same(batches(num_threads), batches(2))


def test_processes_share_each_batch_whatever_their_number():
    """The same images, flipped and cropped alike, come out of one process and of several."""

    def batches(count):
        shares = [
            list(
                train_loader(
                    CanvasDigits("test"),
                    batch_size=48,
                    num_epochs=1,
                    seed=0,
                    transforms=AUGMENT,
                    process_index=index,
                    process_count=count,
                )
            )
            for index in range(count)
        ]
        # Row r of process p is row r * count + p of the global batch.
        return [{key: np.stack([s[key] for s in step], 1).reshape(48, *step[0][key].shape[1:]) for key in step[0]}
                for step in zip(*shares, strict=True)]  # fmt: skip

    alone = batches(1)
    assert len(alone) == 359 // 48
    _assert_same(batches(3), alone)


def test_processes_get_equally_many_batches(numbered):
    lengths = [
        len(list(train_loader(numbered(7), batch_size=2, num_epochs=1, seed=0, process_index=p, process_count=2)))
        for p in range(2)
    ]
    assert lengths == [3, 3]


@pytest.mark.parametrize("threads_after", [0, 4])
def test_resumes_from_its_state_with_any_number_of_threads(threads_after):
    def iterator(threads):
        return iter(
            train_loader(
                CanvasDigits("test"), batch_size=32, num_epochs=2, seed=1, transforms=AUGMENT, num_threads=threads
            )
        )

    interrupted = iterator(2)
    for _ in range(13):  # into the second epoch
        next(interrupted)
    state = interrupted.get_state()
    assert state == {"next_batch": 13, "num_workers": 0, "unreadable": []}
    expected = list(interrupted)
    resumed = iterator(threads_after)
    next(resumed)
    resumed.set_state(state)
    _assert_same(list(resumed), expected)
    assert len(expected) == 2 * 359 // 32 - 13


def test_image_folder_through_the_whole_pipeline(image_tree):
    transforms = [Squash(6), *AUGMENT]
    loader = train_loader(ImageFolder(image_tree, "train"), batch_size=5, num_epochs=2, seed=0, transforms=transforms)
    batches = list(loader)
    assert [sorted(batch["label"].tolist()) for batch in batches] == [[0, 0, 0, 1, 1]] * 2
    assert batches[0]["pixels"].shape == (5, 6, 6, 3)


class _Halved(grain.transforms.Map):
    def map(self, element):
        return element | {"pixels": element["pixels"].astype(np.float32) / 2}


@pytest.mark.parametrize("transforms", [(), (_Halved(),)])
def test_images_decoded_within_their_batch_are_those_that_are_decoded_alone(tmp_path, save_jpeg, transforms):
    """JPEGs, which are, and PNGs, which are copied; one broken image is replaced by its neighbour."""
    for number in range(8):
        save_jpeg(tmp_path / "train" / "a" / f"{number}.jpg")
    Image.open(tmp_path / "train" / "a" / "5.jpg").save(tmp_path / "train" / "a" / "5.png")
    whole = (tmp_path / "train" / "a" / "2.jpg").read_bytes()
    (tmp_path / "train" / "a" / "2.jpg").write_bytes(whole[: len(whole) // 2])
    source = ImageFolder(tmp_path, "train")
    options = {"transforms": transforms, "on_error": "skip", "numbered": True}
    for batch in train_loader(source, batch_size=9, num_epochs=3, seed=0, **options):
        assert sorted(batch["index"]) == [0, 1, 3, 3, 4, 5, 6, 7, 8]
        expected = np.stack([source[index]["pixels"] for index in batch["index"].tolist()])
        np.testing.assert_array_equal(batch["pixels"], expected / 2 if transforms else expected)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"batch_size": 6, "process_count": 4},
            "batch size 6 is not a positive multiple of the number of processes, 4",
        ),
        ({"batch_size": 0}, "batch size 0 is not a positive multiple of the number of processes, 1"),
        ({"process_index": 2, "process_count": 2}, "process index 2 is not one of 0 to 1"),
        ({"batch_size": 64}, "10 images × 2 epochs do not fill one batch of 64; choose a smaller batch size"),
    ],
)
def test_bad_arguments_are_explained(numbered, arguments, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        train_loader(numbered(10), **{"batch_size": 4, "num_epochs": 2, "seed": 0} | arguments)


def test_images_of_different_sizes_are_explained(numbered):
    class Growing(numbered):
        def __getitem__(self, index):
            return super().__getitem__(index) | {"pixels": np.zeros((2 + index, 3, 3), np.uint8)}

    sentence = "images of 2 × 3 and 3 × 3 pixels cannot share a batch; bring them to one size with Squash or CenterCrop"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        list(train_loader(Growing(2), batch_size=2, num_epochs=1, seed=0))


def test_unreadable_image_stops_the_loader_with_its_name(image_tree):
    source = ImageFolder(image_tree, "train")
    (image_tree / source.name(2)).write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"cannot read image .*cat/z\.png"):
        list(train_loader(source, batch_size=5, num_epochs=1, seed=0))
