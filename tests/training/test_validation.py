"""Validation: on which images, over which of them, and what is refused before anything is written."""

import json
from pathlib import Path

import jax
import numpy as np
from PIL import Image
import pytest

from castream_jax.data import ImageFolder, open_source, register_source
from castream_jax.data.named_sources import SOURCES
from castream_jax.experiment.model_parts import model_parts
from castream_jax.model import Model
from castream_jax.runtime.mesh import data_mesh, replicate
from castream_jax.training import train
from castream_jax.training.recipe import remarks
from castream_jax.training.validate import make_validation


def test_accuracy_is_over_the_images_that_can_be_read(tiny_config, small_model: Model, tmp_path: Path):
    """All of class 0, which a model that says 0 has right; one of four cannot be read."""
    names = [str(number) for number in range(10)]
    for name in names:
        (tmp_path / "val" / name).mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (32, 32), (number, 99, 0)).save(tmp_path / "val" / "0" / f"{number}.png")
    for name in names[1:]:
        (tmp_path / "val" / name / "broken.png").write_bytes(b"")
    (tmp_path / "val" / "0" / "3.png").write_bytes(b"")
    config = tiny_config(
        data={"source": "image_folder", "path": str(tmp_path), "validation_split": "val", "on_error": "skip"},
        train={"validate_every": 1, "batch_size": 8},
    )
    parts, mesh, said = model_parts(small_model, "streams"), data_mesh(jax.devices()[:1]), []
    state = replicate({"params": parts.params, "stats": parts.stats}, mesh)
    validate = make_validation(config, parts, mesh, names, said.append)
    assert validate is not None
    scores = validate(state, replicate(parts.frozen, mesh))
    pixels = np.stack([ImageFolder(tmp_path, "val")[i]["pixels"] for i in range(3)]).astype(np.float32) / 255
    for name, logits in small_model(pixels).items():
        assert scores[name] == np.mean(np.argmax(logits, 1) == 0)
    assert any("10 unreadable images were skipped" in line for line in said)
    (tmp_path / "val" / "0" / "0.png").write_bytes(b"")
    (tmp_path / "val" / "0" / "1.png").write_bytes(b"")
    (tmp_path / "val" / "0" / "2.png").write_bytes(b"")
    with pytest.raises(ValueError, match="None of the images to validate on can be read"):
        validate(state, replicate(parts.frozen, mesh))


def test_several_labels_are_asked_for_before_training_starts(tiny_config, tmp_path: Path):
    with pytest.raises(ValueError, match="'binary_cross_entropy' is for images with several labels, and those of"):
        train(tiny_config(train={"loss": "binary_cross_entropy"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_label_of_every_image_is_asked_for_before_training_starts(tiny_config, tmp_path: Path, monkeypatch):
    class Unlabelled:
        class_names = tuple("0123456789")
        labels = np.array([3, -1, 4, -1] * 50, np.int32)

        def __init__(self, path: str, split: str):
            pass

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, index: int) -> dict:
            pixels = np.zeros((32, 32, 3), np.uint8)
            return {"pixels": pixels, "label": self.labels[index], "index": index, "target": np.zeros(10, np.float32)}

        def name(self, index: int) -> str:
            return str(index)

    monkeypatch.setattr("castream_jax.data.named_sources.SOURCES", SOURCES)
    register_source("unlabelled")(Unlabelled)
    try:
        with pytest.raises(ValueError, match="100 images of unlabelled 'train' show no class"):
            train(tiny_config(data={"source": "unlabelled"}), tmp_path / "run")
    finally:
        del SOURCES["unlabelled"]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_fraction_is_validated_on_and_its_best_may_be_evaluated(tiny_config, tmp_path: Path):
    from castream_jax.evaluation import evaluate

    config = tiny_config(train={"validate_every": 1, "epochs": 2}, data={"validation_fraction": 0.2})
    workdir = train(config, tmp_path / "run")
    lines = [json.loads(line) for line in (workdir / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert sum("ca/validation_accuracy" in line for line in lines) == 2
    config.evaluation.checkpoint = "best"
    checkpoint = evaluate(config, workdir)["checkpoint"]
    assert (checkpoint["validated_on"], checkpoint["selected_on_reported_split"]) == ("train", False)


def test_classes_that_an_evaluation_will_refuse_are_told_before_training_starts(tiny_config, tmp_path: Path):
    for split, names in (("train", ("apple", "banana")), ("test", ("apple", "Banana"))):
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / split / name / "0.png")
    data = {"source": "image_folder", "path": str(tmp_path), "train_split": "train", "test_split": "test"}
    config = tiny_config(data=data)
    source = open_source(config.data, "train")
    _, said = remarks(config, source)  # after the devices
    assert said.startswith("`castream evaluate` will refuse the test data: The test data (image_folder 'test' in ")
    assert "'Banana' (did you mean 'banana'?)" in said
    config.data.test_split = "absent"  # a training needs none
    assert len(list(remarks(config, source))) == 1
