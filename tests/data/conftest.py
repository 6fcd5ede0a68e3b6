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


@pytest.fixture
def voc(tmp_path: Path, save_jpeg, write, pascal_xml) -> Path:
    """Four images of VOC2012: two people and a dog, one of them difficult; a difficult chair; nothing; a chair."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    annotations = {
        "2007_000027": pascal_xml(
            ("person", 0, 1, 2, 10, 20), ("dog", 0, 4, 5, 6, 7), ("person", 1, 11, 1, 20, 5), ("person", 0, 3, 3, 9, 9)
        ),
        "2008_000002": pascal_xml(("chair", 1, 1, 1, 5, 5)),
        "2008_000003": pascal_xml(),
        "2008_000007": pascal_xml(("chair", 0, 45.70000076293945, 1, 50, 5)),
    }
    for stem, xml in annotations.items():
        save_jpeg(root / "JPEGImages" / f"{stem}.jpg")
        write(root / "Annotations" / f"{stem}.xml", xml)
    write(root / "ImageSets" / "Main" / "val.txt", "".join(f"{stem}\n" for stem in annotations))
    write(root / "ImageSets" / "Main" / "train.txt", "2008_000007\n")
    return root
