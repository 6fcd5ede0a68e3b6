"""One way through folders, for training and for `castream explain`."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, features
import pytest

from castream_jax.data import ImageFolder
from castream_jax.data.decode import IMAGE_SUFFIXES, EncodedImage, UnreadableImageError
from castream_jax.data.image_paths import describe_skipped, find_images, list_images, readable_name


def save(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """`a` with a loop, `b` with a linked and a broken image, `c` a link to `b`, and what is no image."""
    for name in ("a/0.png", "b/0.png", "b/1.png", "a/dir.jpg/in.png", ".hidden/0.png", "a/.0.png"):
        save(tmp_path / name)
    (tmp_path / "a" / "loop").symlink_to(".")
    (tmp_path / "a" / "up").symlink_to("../..", target_is_directory=True)
    (tmp_path / "a" / "itself").symlink_to("itself")
    (tmp_path / "b" / "link.png").symlink_to("0.png")
    (tmp_path / "b" / "broken.png").symlink_to("nowhere.png")
    (tmp_path / "c").symlink_to("b", target_is_directory=True)
    (tmp_path / "b" / "notes.txt").touch()
    (tmp_path / "b" / "raw.heic").touch()
    return tmp_path


FILES = ["a/0.png", "a/dir.jpg/in.png", "b/0.png", "b/1.png", "b/link.png", "c/0.png", "c/1.png", "c/link.png"]


def test_training_and_explain_find_the_same_images_behind_links(linked):
    source = ImageFolder(linked)
    assert source.class_names == ("a", "b", "c")
    assert [source.name(i) for i in range(len(source))] == FILES
    skipped = {}
    assert list_images([str(linked)], None, skipped) == [str(linked / file) for file in FILES]
    for reason, paths in find_images(linked).skipped.items():
        assert sorted(paths) == sorted(source.skipped[reason])
        assert sorted(skipped[reason]) == [str(linked / path) for path in sorted(paths)]


def test_loops_broken_links_and_other_files_are_named(linked):
    source = ImageFolder(linked)
    assert {reason: sorted(paths) for reason, paths in source.skipped.items()} == {
        "a link back into a folder above it": ["a/loop", "a/up"],
        "a link that leads nowhere": ["a/itself", "b/broken.png", "c/broken.png"],
        "no image by its suffix": ["b/notes.txt", "b/raw.heic", "c/notes.txt", "c/raw.heic"],
    }
    sentence = describe_skipped(source.skipped)
    assert sentence.startswith("passed over: ")
    assert "4 × no image by its suffix: b/notes.txt, b/raw.heic, c/notes.txt, …" in sentence


def test_a_pipe_is_named_and_never_read(tmp_path):
    save(tmp_path / "a" / "0.png")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "a" / "link.png").symlink_to("pipe.png")
    source = ImageFolder(tmp_path)
    assert [source.name(i) for i in range(len(source))] == ["a/0.png"]
    assert {reason: sorted(paths) for reason, paths in source.skipped.items()} == {
        "no regular file": ["a/link.png", "a/pipe.png"]
    }
    with pytest.raises(UnreadableImageError, match=r"pipe\.png' \(it is no regular file\); replace or"):
        EncodedImage(tmp_path / "a" / "pipe.png", "pipe.png").decode()
    with pytest.raises(UnreadableImageError, match=r"a' \(Is a directory\); replace or"):
        EncodedImage(tmp_path / "a", "a").decode()


def test_links_at_the_top_of_a_dataset_are_followed_or_named(linked):
    (linked / "all").symlink_to(".")
    (linked / "gone").symlink_to("nowhere")
    save(linked / "stray.png")
    source = ImageFolder(linked)
    assert source.class_names == ("a", "b", "c")
    assert "all" in source.skipped["a link back into a folder above it"]
    assert "gone" in source.skipped["a link that leads nowhere"]
    assert source.skipped["an image outside the class folders"] == ["stray.png"]


def test_a_pattern_does_not_go_round_a_loop(linked):
    (linked / "a" / "up").unlink()
    found = list_images([str(linked / "**" / "*.png")], None)
    assert found == [str(linked / file) for file in FILES]


def test_every_format_that_is_written_is_found_and_read(tmp_path):
    suffixes = [".png", ".jpg", ".jfif", ".jpe", ".bmp", ".gif", ".tif", ".ppm", ".tga", ".webp", ".qoi", ".ico"]
    suffixes += [".jp2"] * features.check("jpg_2000") + [".avif"] * features.check("avif")
    for suffix in suffixes:
        save(tmp_path / "only" / f"image{suffix}")
        save(tmp_path / "only" / f"upper{suffix.upper()}")
    source = ImageFolder(tmp_path)
    assert len(source) == 2 * len(suffixes)
    assert not source.skipped
    for index in range(len(source)):
        assert source[index]["pixels"].ndim == 3


def test_suffixes_are_those_of_pillow_but_for_documents_and_films():
    Image.init()
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN}
    assert known - set(IMAGE_SUFFIXES) <= {
        *(".bufr", ".grib", ".h5", ".hdf", ".fit", ".fits", ".iim"),  # data
        *(".eps", ".ps", ".emf", ".wmf", ".mpg", ".mpeg", ".fli", ".flc", ".pdf"),  # drawings, films
    }


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    (tmp_path / "raw.heic").touch()
    with pytest.raises(ValueError, match=r"holds no images \(passed over: 1 × no image by its suffix: raw\.heic\)\.$"):
        list_images([str(tmp_path)], None)


def test_names_with_line_breaks_or_outside_utf8_are_readable_and_their_files_are_read(tmp_path):
    odd = [b"new\nline.png", b"bad\xff.png", "größe café.png".encode(), b"bell\x07.png"]
    folder = os.fsencode(save(tmp_path / "cl" / "0.png").parent)
    for name in odd:
        with open(os.path.join(folder, name), "wb") as file:
            file.write((tmp_path / "cl" / "0.png").read_bytes())
    os.rename(folder, os.path.join(os.fsencode(tmp_path), b"cl\nass\xfe"))
    source = ImageFolder(tmp_path)
    assert source.class_names == ("cl\\nass\\xfe",)
    names = [source.name(index).rpartition("/")[2] for index in range(len(source))]
    assert sorted(names) == sorted(["0.png", "new\\nline.png", "bad\\xff.png", "größe café.png", "bell\\x07.png"])
    for index in range(len(source)):
        assert source[index]["pixels"].shape == (4, 4, 3)
        source.name(index).encode()
    assert readable_name(os.fsdecode(b"a\xffb")) == "a\\xffb"
    assert readable_name("back\\slash, narrow\u202fspace") == "back\\slash, narrow\u202fspace"


def test_a_list_may_be_separated_by_zero_bytes(tmp_path):
    assert list_images(["-"], ["a\nb.png\0c.png\0"]) == ["a\nb.png", "c.png"]
    assert list_images(["-"], ["a.png\r\n", "b.png\n"]) == ["a.png", "b.png"]
