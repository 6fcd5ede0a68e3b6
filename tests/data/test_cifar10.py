from pathlib import Path
import pickle

import numpy as np
import pytest

from castream_jax.data import Cifar10

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def _rows(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.integers(0, 10, (count, 1), np.uint8), rng.integers(0, 256, (count, 3072), np.uint8)], axis=1
    )


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    """The files of cifar-10-binary.tar.gz with 2, 3, 4, 5, 6 and 7 images."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for number in range(1, 6):
        _rows(number + 1, number).tofile(folder / f"data_batch_{number}.bin")
    _rows(7, 9).tofile(folder / "test_batch.bin")
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return folder


def test_records_are_the_rows_of_the_files_in_order(binary):
    source = Cifar10(binary, "train")
    assert len(source) == 20
    assert source.class_names == tuple(NAMES)
    position = 0
    for number in range(1, 6):
        for row in _rows(number + 1, number):
            record = source[position]
            assert record["label"] == row[0]
            assert (record["label"].dtype, record["index"]) == (np.int32, position)
            # The first 1,024 bytes are red, row by row, then green, then blue.
            for channel in range(3):
                np.testing.assert_array_equal(
                    record["pixels"][:, :, channel].reshape(-1), row[1 + 1024 * channel :][:1024]
                )
            position += 1
    assert len(Cifar10(binary.parent, "test")) == 7
    assert Cifar10(binary, "test").name(3) == "cifar10/test/00003"


def test_a_copy_for_a_worker_process_holds_no_pixels(binary):
    source = Cifar10(binary, "train")
    source[0]
    copy = pickle.dumps(source)
    assert len(copy) < 3000
    np.testing.assert_array_equal(pickle.loads(copy)[5]["pixels"], source[5]["pixels"])


def test_damage_is_named(binary):
    with pytest.raises(ValueError, match=r"^unknown split 'val' of CIFAR-10; choose one of train, test$"):
        Cifar10(binary, "val")
    with pytest.raises(IndexError, match="record 7 is not one of 0 to 6"):
        Cifar10(binary, "test")[7]
    (binary / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_3.bin' is missing"):
        Cifar10(binary, "train")


def test_sizes_and_labels_are_checked(binary, tmp_path):
    for file in binary.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "data_batch_2.bin").write_bytes(bytes(5000))
    with pytest.raises(ValueError, match=r"data_batch_2.bin' has 5000 bytes, no multiple of 3073; unpack"):
        Cifar10(tmp_path, "train")
    (tmp_path / "batches.meta.txt").write_text("airplane\nautomobile\n")
    with pytest.raises(ValueError, match=r"an image in .* is of class \d, and batches.meta.txt names 2"):
        Cifar10(tmp_path, "test")
