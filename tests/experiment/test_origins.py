"""A workdir works from any folder, moved and copied: what it needs is in it, or found, or missed in a sentence."""

import json
from pathlib import Path
import shutil

from flax import nnx
import numpy as np
from PIL import Image
import pytest

import castream_jax as castream
from castream_jax.backbones import save_torch_weights
from castream_jax.cli import main
from castream_jax.experiment.claim import claim_workdir
from castream_jax.experiment.config import Config
from castream_jax.experiment.origins import config_in_place, keep_origins
from castream_jax.experiment.restore import restore_model
from castream_jax.experiment.workdir import Workdir


@pytest.fixture
def project(tmp_path: Path, resnet8_weights: Path, tiny_config, monkeypatch) -> Config:
    """A folder with weights and data, and a config that names both from there; it is the current directory."""
    folder = tmp_path / "project"
    (folder / "data" / "train" / "a").mkdir(parents=True)
    shutil.copy(resnet8_weights, folder / "trunk.safetensors")
    monkeypatch.chdir(folder)
    return tiny_config(backbone={"weights": "trunk.safetensors"}, data={"source": "image_folder", "path": "data"})


def begun(config: Config) -> Workdir:
    workdir = claim_workdir(config, "runs/one")
    keep_origins(config, workdir, tuple("0123456789"), digest="0")
    return workdir


def test_paths_are_noted_from_the_root_and_the_weights_are_kept(project: Config, tmp_path: Path, monkeypatch):
    workdir = begun(project)
    there = workdir.open_config()
    assert there.data.path == str(tmp_path / "project" / "data")
    assert there.backbone.weights == str(tmp_path / "project" / "trunk.safetensors")
    assert workdir.read_class_names() == tuple("0123456789")
    (tmp_path / "project" / "trunk.safetensors").unlink()
    monkeypatch.chdir("/")
    for config in (there, project):  # the workdir's, and the command that trained, given from elsewhere
        assert Path(config_in_place(config, workdir).backbone.weights) == workdir.folder / "weights/trunk.safetensors"


def test_data_that_moved_with_the_workdir_are_found(project: Config, tmp_path: Path, monkeypatch):
    begun(project)
    monkeypatch.chdir("/")
    shutil.move(tmp_path / "project", tmp_path / "moved")
    workdir = Workdir.at(tmp_path / "moved" / "runs" / "one")
    assert config_in_place(workdir.open_config(), workdir).data.path == str(tmp_path / "moved" / "data")


def test_data_that_are_gone_are_told(project: Config, tmp_path: Path, monkeypatch, capsys):
    workdir = begun(project)
    shutil.rmtree("data")
    for command in ("train", "evaluate"):
        assert main([command, "--workdir", str(workdir)]) == 2
        where = tmp_path / "project" / "data"
        assert f"The data are not at {where}, where they were when {workdir} was" in capsys.readouterr().err


def test_a_copy_of_the_weights_that_changed_or_is_gone_is_told(project: Config):
    workdir = begun(project)
    kept = workdir.kept_weights / "trunk.safetensors"
    kept.write_bytes(b"other")
    with pytest.raises(ValueError, match=r"is not what it was when the training started \(its SHA-256 begins with"):
        config_in_place(workdir.open_config(), workdir)
    kept.unlink()
    with pytest.raises(ValueError, match=r"is gone, the copy of the weights that .* was trained with: put a file"):
        config_in_place(workdir.open_config(), workdir)


def test_other_weights_and_data_can_be_given(project: Config, tmp_path: Path):
    workdir = begun(project)
    save_torch_weights(castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(1)), tmp_path / "other.safetensors")
    config = workdir.open_config()
    config.backbone.weights, config.data.path = str(tmp_path / "other.safetensors"), str(tmp_path)
    here = config_in_place(config, workdir)
    assert (here.backbone.weights, here.data.path) == (str(tmp_path / "other.safetensors"), str(tmp_path))


def test_published_names_are_no_paths(project: Config, tmp_path: Path):
    project.backbone.weights = "digits"
    workdir = begun(project)
    assert workdir.open_config().backbone.weights == "digits"
    assert not workdir.kept_weights.exists()
    assert "backbone.weights" not in workdir.read_origins()


def test_relative_paths_of_older_workdirs_are_looked_for_above(project: Config, tmp_path: Path, monkeypatch):
    workdir = claim_workdir(project, "runs/one")
    workdir.config.write_text(project.to_json())
    monkeypatch.chdir("/")
    here = config_in_place(workdir.open_config(), workdir)
    assert here.backbone.weights == str(tmp_path / "project" / "trunk.safetensors")
    assert here.data.path == str(tmp_path / "project" / "data")
    (tmp_path / "project" / "runs" / "data").mkdir()
    with pytest.raises(ValueError, match=r"config.data.path='data' of .* can be .*runs/data or .*/data: say which"):
        config_in_place(workdir.open_config(), workdir)
    config = workdir.open_config()
    config.data.path = "elsewhere"  # given now: from the current directory, or not at all
    assert config_in_place(config, workdir).data.path == "elsewhere"


@pytest.fixture(scope="session")
def moved_source(once, resnet8_weights: Path) -> Path:
    """A project with a config and weights by relative paths, whose digits are trained in `runs/one`."""

    def make(folder: Path) -> None:
        folder.mkdir()
        shutil.copy(resnet8_weights, folder / "trunk.safetensors")
        (folder / "config.py").write_text(
            "from castream_jax.experiment.quickstart import get_config as quickstart\n"
            "def get_config():\n"
            "    config = quickstart()\n"
            "    config.data.update(image_size=32, canvases_per_digit=1)\n"
            "    config.backbone.weights = 'trunk.safetensors'\n"
            "    config.train.update(epochs=1, batch_size=120)\n"
            "    config.evaluation.update(methods=('attention',), max_images=8, batch_size=40, sanity_images=0)\n"
            "    config.evaluation.update(baselines=False, gallery=2)\n"
            "    return config\n"
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            assert main(["train", "--config", "config.py", "--workdir", "runs/one"]) == 0

    return once("project", make)


@pytest.mark.parametrize("how", ["from elsewhere", "moved", pytest.param("copied", marks=pytest.mark.slow)])
def test_every_command_takes_a_workdir_wherever_it_is(moved_source: Path, tmp_path, monkeypatch, capfd, how: str):
    project = Path(shutil.copytree(moved_source, tmp_path / "project"))
    workdir = project / "runs" / "one"
    if how == "moved":
        workdir = Path(shutil.move(workdir, tmp_path / "there"))
        shutil.rmtree(project)
    elif how == "copied":
        workdir = Path(shutil.copytree(workdir, tmp_path / "copy"))
        shutil.rmtree(project)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save("image.png")
    for command in (
        ["evaluate", "--workdir", str(workdir)],
        ["explain", "image.png", "--model", str(workdir)],
        ["report", "--workdir", str(workdir)],
        ["export", "--workdir", str(workdir), "--to", "safetensors", "--out", "out"],
        ["train", "--workdir", str(workdir)],  # resumes, at its end
    ):
        assert main(command) == 0, (command, capfd.readouterr().err)
    assert json.loads(Path("out", "model.json").read_text())["images"]["class_names"] == list("0123456789")


def test_a_model_is_restored_when_its_weight_file_was_written_over(moved_source: Path, tmp_path: Path):
    """As `torch.save` does, in place."""
    project = Path(shutil.copytree(moved_source, tmp_path / "project"))
    (project / "trunk.safetensors").write_bytes(b"another training")
    workdir = Workdir.at(project / "runs" / "one")
    restore_model(workdir.open_config(), workdir)
