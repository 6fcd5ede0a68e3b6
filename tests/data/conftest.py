"""Small sources that the data tests share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
import pytest

from castream_jax.data import Record


class Numbered:
    """Record `i` is an image whose every pixel is `i`, so that a batch shows what it is made of."""

    def __init__(self, length: int, side: int = 2, with_box: bool = False):
        self._length, self._side, self._with_box = length, side, with_box

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(map(str, range(self._length)))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Record:
        pixels = np.full((self._side, self._side, 3), index, np.uint8)
        record: Record = {"pixels": pixels, "label": np.int32(index), "index": index}
        if self._with_box:
            record["box"] = np.array([index, 0, index + 1, 1], np.float32)
        return record

    def name(self, index: int) -> str:
        return str(index)


@pytest.fixture(scope="session")
def numbered() -> type[Numbered]:
    return Numbered


@pytest.fixture
def random_image() -> Callable[[int, int], np.ndarray]:
    rng = np.random.default_rng(0)
    return lambda height, width: rng.integers(0, 256, size=(height, width, 3), dtype=np.uint8)


@pytest.fixture
def image_tree(tmp_path: Path, random_image) -> Path:
    """`train/{cat,dog}` and `test/{cat,dog}` with three and two PNGs."""
    for split in ("train", "test"):
        for label, files in {"dog": ("b.png", "a.png"), "cat": ("z.png", "x.png", "y.png")}.items():
            (tmp_path / split / label).mkdir(parents=True)
            for file in files:
                Image.fromarray(random_image(5, 7)).save(tmp_path / split / label / file)
    return tmp_path


@pytest.fixture
def save_jpeg(random_image) -> Callable[..., None]:
    """Writes a small random photograph, with the folders it needs."""

    def save(path: Path, height: int = 20, width: int = 30) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_image(height, width)).save(path, "JPEG")

    return save
