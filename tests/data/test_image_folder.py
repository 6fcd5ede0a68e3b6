import re

import numpy as np
from PIL import Image
import pytest

from castream_jax.data import ImageFolder


def test_records_run_through_classes_then_files_in_alphabetical_order(image_tree):
    source = ImageFolder(image_tree, "train")
    names = [source.name(i) for i in range(len(source))]
    assert names == [f"train/{name}.png" for name in ("cat/x", "cat/y", "cat/z", "dog/a", "dog/b")]
    assert [int(source[i]["label"]) for i in range(len(source))] == [0, 0, 0, 1, 1]
    assert [source[i]["index"] for i in range(len(source))] == [0, 1, 2, 3, 4]
    assert source.class_names == ("cat", "dog")


def test_record_holds_the_pixels_of_its_file(image_tree):
    source = ImageFolder(image_tree, "train")
    record = source[4]
    with Image.open(image_tree / source.name(4)) as image:
        np.testing.assert_array_equal(record["pixels"], np.asarray(image))
    assert record["pixels"].dtype == np.uint8
    assert record["pixels"].shape == (5, 7, 3)
    assert record["label"].dtype == np.int32


def test_without_split_the_classes_lie_in_the_root(image_tree):
    source = ImageFolder(image_tree / "test")
    assert source.name(0) == "cat/x.png"
    assert len(source) == 5


def test_hidden_files_and_other_files_are_passed_over_and_nested_images_are_found(image_tree, random_image):
    train = image_tree / "train"
    (train / ".cache").mkdir()
    (train / "README.txt").write_text("no class")
    (train / "cat" / ".hidden.png").write_bytes(b"")
    (train / "cat" / "notes.txt").write_text("no image")
    (train / "dog" / "more").mkdir()
    Image.fromarray(random_image(4, 4)).save(train / "dog" / "more" / "c.JPEG", "JPEG")
    source = ImageFolder(image_tree, "train")
    assert source.class_names == ("cat", "dog")
    assert [source.name(i) for i in range(3, len(source))] == [
        "train/dog/a.png",
        "train/dog/b.png",
        "train/dog/more/c.JPEG",
    ]


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P", "RGBA", "CMYK"])
def test_every_colour_mode_becomes_rgb_as_pillow_converts_it(tmp_path, random_image, mode):
    (tmp_path / "only").mkdir()
    image = Image.fromarray(random_image(6, 5)).convert(mode)
    image.save(tmp_path / "only" / ("image.jpg" if mode == "CMYK" else "image.png"))
    pixels = ImageFolder(tmp_path)[0]["pixels"]
    assert pixels.shape == (6, 5, 3)
    if mode != "CMYK":  # JPEG changes the values; the shape is what matters there
        np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))


def test_palette_with_transparent_entries_reads_without_a_warning(tmp_path, random_image):
    (tmp_path / "only").mkdir()
    image = Image.fromarray(random_image(6, 5)).convert("P")
    image.save(tmp_path / "only" / "image.png", transparency=bytes([0, 128] + [255] * 254))
    np.testing.assert_array_equal(ImageFolder(tmp_path)[0]["pixels"], np.asarray(image.convert("RGB")))


def test_exif_orientation_is_not_applied_as_in_torchvision(tmp_path, random_image):
    (tmp_path / "only").mkdir()
    exif = Image.Exif()
    exif[274] = 6  # "rotate by 90° to display"
    pixels = random_image(6, 9)
    Image.fromarray(pixels).save(tmp_path / "only" / "image.png", exif=exif)
    np.testing.assert_array_equal(ImageFolder(tmp_path)[0]["pixels"], pixels)


def test_missing_folder_is_named_and_the_layout_explained(tmp_path):
    sentence = f"image folder '{tmp_path / 'val'}' does not exist; it must hold one sub-folder of images per class"
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(sentence)}$"):
        ImageFolder(tmp_path, "val")


def test_folder_without_classes_is_named_and_the_layout_explained(tmp_path, random_image):
    Image.fromarray(random_image(4, 4)).save(tmp_path / "stray.png")
    sentence = (
        f"image folder '{tmp_path}' has no sub-folders; it must hold one sub-folder of images per class, such as "
        f"'{tmp_path}/CLASS/stray.png'; move the images in it, 1 in number, into those"
    )
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(sentence)}$"):
        ImageFolder(tmp_path)


def test_a_missing_split_names_those_there_are(image_tree):
    with pytest.raises(FileNotFoundError, match=f"; in '{re.escape(str(image_tree))}' there are test, train$"):
        ImageFolder(image_tree, "val")


def test_all_empty_class_folders_are_named(image_tree):
    (image_tree / "train" / "ant").mkdir()
    (image_tree / "train" / "bee").mkdir()
    sentence = f"class folders without images in '{image_tree / 'train'}': ant, bee; add images or remove the folders"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        ImageFolder(image_tree, "train")


@pytest.mark.parametrize("damage", ["truncated", "garbage", "deleted"])
def test_unreadable_image_is_named_when_it_is_read(image_tree, damage):
    source = ImageFolder(image_tree, "train")
    file = image_tree / source.name(1)
    if damage == "deleted":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:60] if damage == "truncated" else b"this is no image")
    with pytest.raises(
        ValueError, match=rf"^cannot read image '{re.escape(str(file))}' \(.*\); replace or remove"
    ) as error:
        source[1]
    assert error.value.__cause__ is not None
    source[0]  # the others are not affected
