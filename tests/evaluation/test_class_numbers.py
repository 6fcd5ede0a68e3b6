"""From training to explanation, classes have the numbers of the training data, whatever other splits hold."""

import json
from pathlib import Path
import shutil

from flax import nnx
import numpy as np
from PIL import Image
import pyarrow.parquet as pq
import pytest

import castream_jax as castream
from castream_jax import evaluation
from castream_jax.backbones import save_torch_weights
from castream_jax.cli import main
from castream_jax.experiment.build import class_names_of
from castream_jax.experiment.workdir import Workdir
from castream_jax.explanation.named_model import open_named_model
from castream_jax.training import train

COLOURS = {"apple": (220, 30, 30), "banana": (230, 220, 40), "cherry": (30, 30, 160)}
NAMES = tuple(COLOURS)


def write_split(root: Path, split: str, names: tuple[str, ...]) -> None:
    rng = np.random.default_rng(len(split))
    for name in names:
        (root / split / name).mkdir(parents=True)
        for number in range(8):
            noise = rng.integers(-25, 25, (32, 32, 3)) + COLOURS.get(name.lower(), (0, 255, 0))
            Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(root / split / name / f"{number}.png")


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("config")
    backbone = castream.create_backbone("cifar_resnet8", 3, rngs=nnx.Rngs(7))
    save_torch_weights(backbone, folder / "three.safetensors")
    (folder / "config.py").write_text(
        "from castream_jax.experiment.config import base_config\n"
        "def get_config():\n"
        "    config = base_config()\n"
        "    config.data.update(image_size=32, resize='none', flip=False, num_threads=1)\n"
        "    config.backbone.update(name='cifar_resnet8', num_classes=3)\n"
        f"    config.backbone.weights = {str(folder / 'three.safetensors')!r}\n"
        "    config.optimizer.update(learning_rate=0.05, decay_every=0)\n"
        "    config.train.update(epochs=10, batch_size=12, log_every=20)\n"
        "    config.evaluation.update(methods=('attention',), batch_size=2, max_images=2, gallery=1, sanity_images=0)\n"
        "    config.evaluation.baselines = False\n"
        "    return config\n"
    )
    return folder / "config.py"


@pytest.fixture(scope="module")
def trained(config_file: Path, tmp_path_factory) -> Path:
    """A folder with training data and a workdir, both to copy."""
    folder = tmp_path_factory.mktemp("fruit")
    write_split(folder / "data", "train", NAMES)
    command = ["train", "--config", str(config_file), f"--config.data.path={folder / 'data'}"]
    assert main([*command, "--workdir", str(folder / "run")]) == 0
    return folder


@pytest.fixture
def fruit(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "fruit"))


def evaluate(fruit: Path) -> int:
    return main(["evaluate", "--workdir", str(fruit / "run"), f"--config.data.path={fruit / 'data'}"])


def test_images_keep_the_training_numbers_where_a_class_has_no_test_image(fruit: Path, capfd):
    write_split(fruit / "data", "test", ("apple", "cherry"))
    assert evaluate(fruit) == 0
    assert "1 of 3 classes have no test image: 'banana'" in capfd.readouterr().err
    summary = Workdir.at(fruit / "run").read_summary()
    assert summary["class_names"] == list(NAMES)
    assert summary["heads"]["ca"]["accuracy"] == 1
    rows = pq.read_table(fruit / "run" / "evaluation" / "predictions").to_pylist()
    assert {(row["name"].split("/")[1], row["label"]) for row in rows} == {("apple", 0), ("cherry", 2)}


@pytest.mark.parametrize(
    ("names", "stranger"),
    [(("apple", "Banana", "cherry"), "'Banana' (did you mean 'banana'?)"), (("apple", "cherry", "date"), "'date'")],
)
def test_other_classes_are_refused_before_anything_is_written(fruit: Path, capfd, names, stranger: str):
    write_split(fruit / "data", "test", names)
    assert evaluate(fruit) == 2
    assert stranger in capfd.readouterr().err
    assert not (fruit / "run" / "evaluation").exists()


def test_explanations_and_exports_have_the_training_names(fruit: Path, tmp_path: Path):
    write_split(fruit / "data", "test", ("apple", "cherry"))
    model, _ = open_named_model(str(fruit / "run"))
    assert model.images.class_names == NAMES
    explained = castream.explain(model, fruit / "data" / "test" / "cherry" / "0.png", label="cherry")
    assert set(explained.classes.values()) == {2}
    shutil.rmtree(fruit / "data")
    assert main(["export", "--workdir", str(fruit / "run"), "--to", "safetensors", "--out", str(tmp_path / "x")]) == 0
    assert json.loads((tmp_path / "x" / "model.json").read_text())["images"]["class_names"] == list(NAMES)


def test_an_older_workdir_has_the_names_of_its_training_data_while_they_are_there(fruit: Path):
    workdir = Workdir.at(fruit / "run")
    workdir.classes.unlink()
    write_split(fruit / "data", "test", ("apple", "date", "cherry"))
    config = workdir.open_config()
    config.data.path = str(fruit / "data")
    assert class_names_of(config, workdir) == NAMES
    shutil.rmtree(fruit / "data" / "train")
    assert class_names_of(config, workdir) == ("apple", "cherry", "date")


def test_validation_is_refused_on_other_classes_and_a_training_goes_on_with_its_own(
    fruit: Path, config_file: Path, tmp_path: Path, capfd
):
    write_split(fruit / "data", "val", ("apple", "cherry", "date"))
    command = ["train", "--config", str(config_file), f"--config.data.path={fruit / 'data'}"]
    validated = ["--config.data.validation_split=val", "--config.train.validate_every=1"]
    assert main([*command, *validated, "--workdir", str(tmp_path / "new")]) == 2
    assert "The validation data (image_folder 'val' in" in capfd.readouterr().err
    assert not (tmp_path / "new").exists()
    (fruit / "data" / "train" / "banana").rename(fruit / "data" / "train" / "durian")
    assert main([*command, "--workdir", str(fruit / "run")]) == 2
    assert "classes of the training data: 'durian'" in capfd.readouterr().err


@pytest.mark.slow
def test_after_a_distillation_no_names_are_made_up(tiny_config, tmp_path: Path, capsys):
    """Images without classes train; test data are then numbered as they sort, which is said, and names nothing else."""
    (tmp_path / "train" / "any").mkdir(parents=True)
    for split, names in (("train", ["any"] * 40), ("test", [f"class{number}" for number in range(10)])):
        for number, name in enumerate(names):
            (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (number, 99, 7)).save(tmp_path / split / name / f"{number}.png")
    data = {"source": "image_folder", "path": str(tmp_path), "train_split": "train", "test_split": "test"}
    config = tiny_config(data=data, train={"loss": "distillation", "batch_size": 8})
    config.streams.ca.init = "gap"
    workdir = Workdir.at(train(config, tmp_path / "run"))
    assert "ca/agreement 100.0%" in capsys.readouterr().err
    assert workdir.read_class_names() is None
    evaluation.evaluate(config, workdir)
    said = " ".join(capsys.readouterr().err.split())
    assert "they are numbered as the test data sort (0 is 'class0', 1 is 'class1', 2 is 'class2', …)" in said
    assert "10.0% of the images are classified rightly, which is chance" in said
    assert class_names_of(config, workdir) == ()
