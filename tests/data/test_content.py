"""One number for all that a source holds."""

from pathlib import Path

import numpy as np
from PIL import Image
import pytest

from castream_jax.data import CanvasDigits, ImageFolder
from castream_jax.data.content import content_digest
from castream_jax.data.subset import Subset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for label in "ab":
        (tmp_path / "test" / label).mkdir(parents=True)
        for number in range(300):
            Image.new("L", (3, 3), number % 256).save(tmp_path / "test" / label / f"{number:03}.bmp")
    return tmp_path


def test_other_content_under_the_same_names_is_another_digest(folder: Path):
    source = ImageFolder(folder, "test")
    seen = [content_digest(source, sizes=True)]
    assert content_digest(ImageFolder(folder, "test"), sizes=True) == seen[0]
    first, second = folder / "test" / "a" / "000.bmp", folder / "test" / "a" / "001.bmp"
    content = second.read_bytes()
    for change in (
        lambda: Image.new("L", (3, 3), 77).save(first),  # the first is among those that are read
        lambda: first.write_bytes(b"damaged"),
        first.unlink,
        lambda: second.write_bytes(content + b"longer"),  # this one is not: its size shows
    ):
        change()
        seen.append(content_digest(source, sizes=True))
    assert len(set(seen)) == len(seen)
    at_rest = content_digest(source, sizes=False)
    second.write_bytes(content)
    assert content_digest(source, sizes=False) == at_rest
    second.rename(second.with_stem("renamed"))
    assert content_digest(ImageFolder(folder, "test"), sizes=False) != at_rest


def test_sources_without_files_and_parts_of_sources_have_one():
    digits = CanvasDigits("test", 1)
    part, other = (Subset(digits, indices) for indices in (range(10), range(1, 11)))
    assert content_digest(part, sizes=True) == content_digest(Subset(digits, np.arange(10)), sizes=True)
    assert content_digest(part, sizes=True) != content_digest(other, sizes=True)
