"""Prepared data: what is kept of a source, what is not written twice, and what is said when something is wrong."""

# pyright: reportAttributeAccessIssue=false

# Records that are asked for a box or a target have one:
# pyright: reportTypedDictNotRequiredAccess=false

import io
import json
import os
from pathlib import Path
import pickle
import signal
import subprocess
import sys

from ml_collections import ConfigDict
import numpy as np
from PIL import Image
import pytest

import castream_jax
from castream_jax.cli import main
from castream_jax.data import (
    BrightnessJitter,
    CanvasDigits,
    RandomCrop,
    RandomFlip,
    RandomResizedCrop,
    Squash,
    Subset,
    UnreadableImageError,
    evaluation_batches,
    open_source,
)
from castream_jax.data.content import content_digest
from castream_jax.data.prepare import Split, prepare
from castream_jax.data.prepared_images import JpegForm
from castream_jax.data.prepared_source import PreparedSource
from castream_jax.experiment.config import base_config


def _data(**fields) -> ConfigDict:
    data = base_config().data
    data.update({"num_threads": 1, "image_size": 16} | fields)
    return data


def _prepare(*arguments: str) -> int:
    return main(["data", "prepare", *arguments])


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """`train` and `val` of two classes: smooth images of several sizes, one of them smaller than what is made of it."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number, (width, height) in enumerate(((50, 40), (33, 70), (20, 18))):
                coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
                coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=95)
    return tmp_path / "images"


def test_names_labels_classes_and_sizes_are_the_source_s_and_small_jpegs_stay_as_they_are(photographs, tmp_path):
    out = tmp_path / "out"
    assert _prepare("image_folder", "--path", str(photographs), "--out", str(out), "--side=32", "--shard-images=4") == 0
    raw = open_source(_data(path=str(photographs)), "train")
    made = open_source(_data(source="prepared", path=str(out)), "train")
    assert [made.name(i) for i in range(6)] == [raw.name(i) for i in range(6)]
    assert made.labels.tolist() == raw.labels.tolist()
    assert made.class_names == raw.class_names
    for index in range(6):
        image, original = made.open(index)["pixels"], raw.open(index)["pixels"]
        assert image.size == original.size
        fits = max(original.size) <= 32
        assert image.pixels().shape[:2] == (original.size if fits else (32, 32))
        assert (image.stored() == original.stored()) == fits
        with Image.open(io.BytesIO(image.stored())) as stored:
            assert stored.format == "JPEG"
    # Worker processes get a source by pickle, and data have one identity wherever they lie.
    digest = content_digest(made, sizes=True)
    assert content_digest(pickle.loads(pickle.dumps(made)), sizes=True) == digest
    out.rename(tmp_path / "moved")
    assert content_digest(PreparedSource(tmp_path / "moved", "train"), sizes=True) == digest


@pytest.mark.parametrize("resize", ["squash", "center_crop", "none"])
def test_a_lossless_split_evaluates_to_the_very_pixels(photographs, tmp_path, resize):
    if resize == "none":
        for path in photographs.rglob("[01].jpg"):
            path.unlink()
    options = ("--config.data.image_size=16", f"--config.data.resize={resize}", "--side=24", "--lossless=val")
    assert _prepare("image_folder", "--path", str(photographs), "--out", str(tmp_path / "out"), *options) == 0

    def batch(**fields):
        data = _data(resize=resize, test_split="val", **fields)
        return next(iter(evaluation_batches(data, open_source(data, "test"), batch_size=6)))

    expected, got = batch(path=str(photographs)), batch(source="prepared", path=str(tmp_path / "out"))
    assert expected.keys() == got.keys()
    for key, rows in expected.items():
        np.testing.assert_array_equal(got[key], rows)


def test_crops_of_a_prepared_image_are_those_of_its_original(photographs, tmp_path):
    """The same part of the same scene, boxes included: the original's size decides where a crop lies."""
    assert _prepare("image_folder", "--path", str(photographs), "--out", str(tmp_path / "out"), "--side=48") == 0
    raw = open_source(_data(path=str(photographs)), "train")
    made = open_source(_data(source="prepared", path=str(tmp_path / "out")), "train")
    crop = RandomResizedCrop(16, scale=(0.5, 1))
    box = np.array([5, 6, 12, 16], np.float32)
    for index in range(6):
        ours, theirs = (
            crop.random_map(source.open(index) | {"box": box}, np.random.default_rng(index)) for source in (made, raw)
        )
        np.testing.assert_array_equal(ours["box"], theirs["box"])
        difference = np.abs(np.asarray(ours["pixels"], float) - np.asarray(theirs["pixels"], float))
        assert difference.mean() < 8  # of 255; another image, or its mirror, differs by 60


def test_what_is_exact_stays_so_through_further_transforms_with_its_boxes(photographs, tmp_path):
    command = ("image_folder", "--path", str(photographs), "--out", str(tmp_path / "out"), "--lossless=train")
    assert _prepare(*command, "--config.data.image_size=16") == 0
    sources = [open_source(_data(**place), "train") for place in (
        {"path": str(photographs)}, {"source": "prepared", "path": str(tmp_path / "out")}
    )]  # fmt: skip
    box = np.array([5, 6, 12, 16], np.float32)
    for index in range(6):
        results = []
        for source in sources:
            record = Squash(16).map(source.open(index) | {"box": box})
            for transform in (RandomFlip(), RandomCrop(3), BrightnessJitter(0.5)):
                record = transform.random_map(record, np.random.default_rng(index))
            results.append((np.asarray(record["pixels"]).tolist(), record["box"].tolist()))
        assert results[0] == results[1]


@pytest.mark.parametrize("rows", ["images", "pairs"])
def test_boxes_and_several_labels_are_kept(voc, tmp_path, rows):
    """`[]` gives boxes in pixels of the image as it is stored, `open` in pixels of the original."""
    assert _prepare("voc", "--path", str(voc), "--out", str(tmp_path / "out"), "--side=10") == 0
    raw = open_source(_data(source="voc", path=str(voc), train_split="val"), "train", rows)
    made = open_source(
        _data(source="prepared", path=str(tmp_path / "out"), train_split="val"), "train", rows, as_it_is=True
    )
    assert len(made) == len(raw) == {"images": 4, "pairs": 3}[rows]
    for index in range(len(raw)):
        assert made.name(index) == raw.name(index)
        expected, got, stored = raw.open(index), made.open(index), made[index]
        for key in ("label", "box", "target", "target_mask"):
            np.testing.assert_array_equal(got[key], expected[key])
        assert stored["pixels"].shape == (10, 10, 3)
        np.testing.assert_allclose(stored["box"], expected["box"] * [10 / 30, 10 / 20, 10 / 30, 10 / 20], rtol=1e-6)


def test_a_stopped_preparation_continues_and_ends_in_the_same_files(tmp_path):
    class StopError(Exception):
        pass

    def stop(done: int) -> None:
        if done == 20:
            raise StopError

    splits = {"test": Split(Subset(CanvasDigits("test", canvas_size=32), range(36)), JpegForm(32, 90))}
    whole = prepare(splits, tmp_path / "whole", origin={}, images_per_shard=10)
    assert (whole.images, whole.made) == (36, 4)
    with pytest.raises(StopError):
        prepare(splits, tmp_path / "out", origin={}, images_per_shard=10, report=stop)
    with pytest.raises(FileNotFoundError, match="is not finished: run the command that prepares it again"):
        PreparedSource(tmp_path / "out", "test")
    first = (tmp_path / "out" / "test-00000.arrayrecord").stat().st_mtime_ns
    assert prepare(splits, tmp_path / "out", origin={}, images_per_shard=10).made == 2
    assert (tmp_path / "out" / "test-00000.arrayrecord").stat().st_mtime_ns == first
    assert _contents(tmp_path / "out") == _contents(tmp_path / "whole")


@pytest.mark.system
def test_a_killed_preparation_continues_and_ends_in_the_same_files(tmp_path):
    command = [sys.executable, "-m", "castream_jax", "data", "prepare", "digits", "--split=test"]
    command += ["--config.data.image_size=32", "--shard-images=20", "--workers=1", "--out"]
    environment = os.environ | {"PYTHONPATH": str(Path(castream_jax.__file__).parents[1])}
    with subprocess.Popen([*command, str(tmp_path / "out")], env=environment, stderr=subprocess.PIPE) as process:
        while not (tmp_path / "out" / "test-00001.npz").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out" / "prepared.json").exists()
    for folder in ("out", "whole"):
        subprocess.run([*command, str(tmp_path / folder)], env=environment, check=True, capture_output=True)
    assert _contents(tmp_path / "out") == _contents(tmp_path / "whole")  # no half-written file is left, either


def test_a_damaged_shard_is_named_by_its_reader_and_by_data_check_and_made_anew(photographs, tmp_path, capsys):
    out = tmp_path / "out"
    command = ("image_folder", "--path", str(photographs), "--out", str(out), "--side=32")
    assert _prepare(*command) == 0
    sound, shard = _contents(out), out / "train-00000.arrayrecord"
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 200 :: 97] = bytes(len(damaged[len(damaged) // 200 :: 97]))
    shard.write_bytes(damaged)
    source = open_source(_data(source="prepared", path=str(out)), "train")
    with pytest.raises(UnreadableImageError, match=r"'train/cat/0.jpg' \(its shard is damaged\); run the command that"):
        source[0]
    assert main(["data", "check", "prepared", "--path", str(out), "--sample", str(tmp_path / "s")]) == 2
    assert "1 files of" in (error := capsys.readouterr().err)
    assert "such as train-00000.arrayrecord: run the command that prepared the data again" in error
    shard.write_bytes(damaged[:1000])
    with pytest.raises(ValueError, match=r"train-00000.arrayrecord' has 1,000 bytes and not .*: the command that prep"):
        PreparedSource(out, "train")
    assert _prepare(*command) == 0
    assert _contents(out) == sound
    assert main(["data", "check", "prepared", "--path", str(out), "--sample", str(tmp_path / "s")]) == 0


def test_unreadable_images_stop_or_are_left_out_and_named(photographs, tmp_path, capsys):
    (photographs / "train" / "cat" / "1.jpg").write_bytes(b"broken")
    command = ("image_folder", "--path", str(photographs), "--out", str(tmp_path / "out"), "--on-error")
    assert _prepare(*command, "stop") == 2
    assert "cannot read image 'train/cat/1.jpg'" in capsys.readouterr().err.replace(str(photographs) + "/", "")
    command = ("image_folder", "--path", str(photographs), "--out", str(tmp_path / "other"), "--on-error")
    assert _prepare(*command, "skip") == 0
    assert "left out: 1\n  train/cat/1.jpg\n" in capsys.readouterr().out
    source = PreparedSource(tmp_path / "other", "train")
    assert [source.name(i) for i in range(len(source))][:2] == ["train/cat/0.jpg", "train/cat/2.jpg"]
    assert source.labels.tolist() == [0, 0, 1, 1, 1]


def test_a_full_disk_is_a_sentence(photographs, tmp_path, monkeypatch, capsys):
    class Full:
        def __init__(self, *_):
            pass

        def write(self, _: bytes):
            raise RuntimeError("write() failed: No space left on device")

    monkeypatch.setattr("castream_jax.data.prepare.ArrayRecordWriter", Full)
    assert main(["data", "prepare", "image_folder", "--path", str(photographs), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "cannot be written (write() failed: No space left on device): see to it, and run the same command" in said


def test_each_wrong_use_gets_one_sentence(photographs, tmp_path, capsys):
    out, other = tmp_path / "out", tmp_path / "other"
    command = ("image_folder", "--path", str(photographs), "--out", str(out), "--lossless=val", "--side=20")
    assert _prepare(*command) == 0
    other.mkdir()
    (other / "mine.txt").touch()
    for arguments, sentence in (
        ((*command, "--quality=80"), "quality=90 there, JpegForm side=20 quality=80 here"),
        ((*command[:3], "--out", str(other)), "holds something else, such as 'mine.txt': give --out a folder of its"),
        ((*command, "--quality=101"), "--quality must be between 1 and 100, got 101."),
        ((*command, "--side=0"), "--side must be positive, got 0."),
        ((*command, "--lossless=tset"), "--lossless=tset is none of the splits, which are 'train', 'val'."),
        (("prepared", *command[1:]), "These data are prepared already"),
        ((*command, "--config.data.sied=3"), "did you mean"),
    ):
        assert _prepare(*arguments) == 2
        assert sentence in capsys.readouterr().err
    for fields, split, sentence in (
        ({"image_size": 24}, "train", r"--side=20, and resize='squash' at image_size=24 needs 24: prepare it with"),
        ({"image_size": 20, "resize": "center_crop"}, "train", "needs 22: prepare it with --side=22 or more"),
        ({"resize": "none"}, "train", "was resized to 20 × 20, and config.data.resize='none'"),
        ({"test_split": "val"}, "test", r"exact pixels of resize='squash' at image_size=224, and config.data.resize"),
        ({"train_split": "trian"}, "train", r"has no split 'trian'; it has 'train', 'val'"),
        ({"exif_orientation": True}, "train", "exif_orientation has no effect on source 'prepared'"),
        ({"path": str(other)}, "train", r"no prepared data in .* give the --out of `castream data prepare`"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=sentence):
            open_source(_data(**({"source": "prepared", "path": str(out)} | fields)), split)
    manifest = json.loads((out / "prepared.json").read_text())
    (out / "prepared.json").write_text(json.dumps(manifest | {"format": 7}))
    with pytest.raises(ValueError, match="was prepared in format 7, and this version reads format 1"):
        PreparedSource(out, "train")
