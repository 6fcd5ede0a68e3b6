"""`castream data check`, as a user runs it."""

from pathlib import Path

import numpy as np
from PIL import Image
import pytest

from castream_jax.cli import main


def _run(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, list[str], list[str]]:
    status = main(["data", "check", *arguments])
    captured = capsys.readouterr()
    return status, captured.out.splitlines(), captured.err.splitlines()


def test_counts_classes_sizes_and_splits_and_draws_a_sample(image_tree, save_jpeg, tmp_path, capsys):
    save_jpeg(image_tree / "train" / "dog" / "large.jpg", height=40, width=25)
    status, out, err = _run(capsys, "image_folder", "--path", str(image_tree), "--sample", str(tmp_path / "out" / "s"))
    assert status == 0
    assert out == [
        "image_folder train",
        "  6 images of 2 classes",
        "  images per class: 3 to 3",
        "  images: 7 × 5 to 25 × 40 pixels (width × height)",
        "  boxes: none",
        "  unreadable images: 0",
        f"  sample: {tmp_path / 'out' / 's-train.png'}",
        "image_folder test",
        "  5 images of 2 classes",
        "  images per class: 2 to 3",
        "  images: 7 × 5 to 7 × 5 pixels (width × height)",
        "  boxes: none",
        "  unreadable images: 0",
        f"  sample: {tmp_path / 'out' / 's-test.png'}",
    ]
    assert any("6/6 images" in line for line in err)
    with Image.open(tmp_path / "out" / "s-train.png") as sample:
        assert sample.size == (16 + 6 * 144, 192)
        # The second image is the second file, squashed; below it stands its name.
        with Image.open(image_tree / "train" / "cat" / "y.png") as second:
            expected = np.asarray(second.resize((128, 128), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(np.asarray(sample)[16:144, 160:288], expected)
        assert (np.asarray(sample)[144:, 160:288] < 128).any()


def test_unreadable_images_are_all_named_and_the_status_is_2(image_tree, tmp_path, capsys):
    for name in ("x", "z"):
        (image_tree / "train" / "cat" / f"{name}.png").write_bytes(b"broken")
    path = str(image_tree)
    status, out, err = _run(capsys, "image_folder", "--path", path, "--split", "train", "--sample", str(tmp_path / "s"))
    assert status == 2
    assert "  5 images of 2 classes" in out
    assert "  unreadable images: 2" in out
    assert [line for line in out if "cannot read image" in line and line.endswith("replace or remove the file")] == [
        line for line in out if "cat/x.png" in line or "cat/z.png" in line
    ]
    assert err[-1].startswith("castream: unreadable images: 2, named above; replace or remove them")
    assert Path(tmp_path / "s-train.png").exists()


def test_multi_label_images_count_for_each_class_and_boxes_are_drawn(tmp_path, save_jpeg, write, pascal_xml, capsys):
    save_jpeg(tmp_path / "JPEGImages" / "2007_000027.jpg", height=128, width=128)
    save_jpeg(tmp_path / "JPEGImages" / "2007_000028.jpg", height=128, width=128)
    objects = ("person", 0, 11, 21, 60, 100), ("dog", 0, 4, 5, 6, 7), ("dog", 0, 70, 70, 90, 90)
    write(tmp_path / "Annotations" / "2007_000027.xml", pascal_xml(*objects))
    write(tmp_path / "Annotations" / "2007_000028.xml", pascal_xml())
    write(tmp_path / "ImageSets" / "Main" / "val.txt", "2007_000027\n2007_000028\n")
    arguments = ("voc", "--path", str(tmp_path), "--split", "val", "--sample", str(tmp_path / "s"))
    status, out, _ = _run(capsys, *arguments)
    assert status == 0
    assert out[1:7] == [
        "  2 images of 20 classes",
        "  images per class: 1 to 1",
        "  18 classes have no image: aeroplane, bicycle, bird, boat, bottle, …",
        "  images without any class: 1",
        "  images: 128 × 128 to 128 × 128 pixels (width × height)",
        "  boxes: 3",
    ]
    with Image.open(tmp_path / "s-val.png") as sample:
        # Outlines on the first and last pixels of the box, whose coordinates in the file count from 1.
        pixels = np.asarray(sample)[16:144, 16:144]
    for row, column in ((20, 10), (99, 59), (20, 59), (60, 10)):
        assert pixels[row, column].tolist() == [255, 0, 0]
    # The annotation of another image, as after a list was sorted anew.
    write(tmp_path / "Annotations" / "2007_000028.xml", pascal_xml(("dog", 0, 100, 5, 160, 60)))
    _, out, _ = _run(capsys, *arguments)
    assert "  images with a box that reaches beyond the image: 1: JPEGImages/2007_000028.jpg" in out


def test_digits_need_no_path(tmp_path, capsys):
    status, out, _ = _run(capsys, "digits", "--split", "test", "--sample", str(tmp_path / "s"))
    assert status == 0
    assert "  359 images of 10 classes" in out
    assert "  boxes: 359" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("image_foldr",), "castream: unknown data source 'image_foldr'; did you mean 'image_folder'?"),
        (("cub",), "castream: source 'cub' needs a path, the folder of the dataset"),
        (("cub", "--path", "/absent"), "castream: '/absent/images.txt' is missing, which lists the images"),
        (("imagenet", "--path", "/absent"), "castream: no ImageNet images in '/absent/val'"),
        (("tfds", "--path", "/absent"), "castream: no prepared TFDS dataset in '/absent'"),
    ],
)
def test_mistakes_are_told_in_one_sentence(arguments, sentence, capsys):
    status, out, err = _run(capsys, *arguments)
    assert (status, out) == (2, [])
    assert err[-1].startswith(sentence)


def test_grey_transparent_tagged_and_skipped_files_are_counted(image_tree, tmp_path, random_image, capsys):
    cat = image_tree / "train" / "cat"
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(random_image(4, 6)).save(cat / "photo.jpg", exif=exif)
    Image.fromarray(random_image(4, 6)[..., 0]).save(cat / "grey.png")
    Image.fromarray(random_image(4, 6)).convert("RGBA").save(cat / "alpha.png")
    (cat / "notes.txt").touch()
    (cat / "loop").symlink_to(".")
    arguments = ("--path", str(image_tree), "--split", "train", "--sample", str(tmp_path / "s"))
    status, out, _ = _run(capsys, "image_folder", *arguments)
    assert status == 0
    for line in (
        "  greyscale images: 1",
        "  images with an alpha channel, which is dropped: 1",
        "  images with an EXIF orientation: 1: train/cat/photo.jpg",
        "    they are read as they are stored; --config.data.exif_orientation=True turns them",
    ):
        assert line in out
    (passed_over,) = (line for line in out if "passed over" in line)
    assert "1 × no image by its suffix: train/cat/notes.txt" in passed_over
    assert "1 × a link back into a folder above it: train/cat/loop" in passed_over


def test_images_above_the_limit_name_the_option_that_raises_it(image_tree, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    Image.new("RGB", (300, 200)).save(image_tree / "train" / "cat" / "large.png")
    arguments = ("--path", str(image_tree), "--split", "train", "--sample", str(tmp_path / "s"))
    status, out, err = _run(capsys, "image_folder", *arguments)
    assert status == 2
    (large,) = (line for line in out if "large.png" in line)
    assert large.endswith("large.png' (it has 60,000 pixels, and the limit is 40,000); --max-pixels=60000 reads it")
    assert "--config.data.on_error=skip" in err[-1]
    assert _run(capsys, "image_folder", *arguments, "--max-pixels", "60000")[0] == 0
