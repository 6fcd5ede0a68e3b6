"""Configs: defaults, overrides, files, and what is refused."""

from pathlib import Path
import re
import shutil
import sys

from flax import nnx
import pytest

from castream_jax.experiment.build import open_backbone
from castream_jax.experiment.config import base_config, open_config, override, stream_config

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"


def test_defaults_are_the_papers_recipe():
    config = base_config()
    recipe = config.optimizer
    assert (recipe.learning_rate, recipe.momentum, recipe.weight_decay) == (0.1, 0.9, 1e-4)
    assert (recipe.decay_every, recipe.decay_factor) == (30, 10)
    assert (config.train.epochs, config.train.batch_size) == (90, 256)
    assert config.streams.ca == stream_config(start_stage=0, block="ca", num_heads=1, class_specific=False)


def test_backbone_is_opened_with_its_taps():
    config = base_config()
    config.backbone.update(name="convnext_tiny", num_classes=3, taps="stages")
    config.train.target = "backbone"
    assert nnx.eval_shape(lambda: open_backbone(config)).stage_dims == (96, 96, 192, 384, 768)


def test_overrides_set_fields_and_leave_the_original():
    config = base_config()
    changed = override(config, ["--config.train.epochs=3", "--config.streams.ca.block=proj_ca", "--config.name=x"])
    assert (changed.train.epochs, changed.streams.ca.block, changed.name) == (3, "proj_ca", "x")
    assert config.train.epochs == 90


@pytest.mark.parametrize("text", ["gradcam,cam", "gradcam, cam,", "(gradcam,cam)", "('gradcam','cam')"])
def test_methods_are_set_with_and_without_quotes(text: str):
    assert override(base_config(), [f"--config.evaluation.methods={text}"]).evaluation.methods == ("gradcam", "cam")


def test_unknown_fields_are_refused_wherever_they_are_set(tmp_path: Path):
    with pytest.raises(AttributeError):
        base_config().optimizer.learn_rate = 1
    with pytest.raises(ValueError, match=r"did you mean --config\.optimizer\.learning_rate"):
        override(base_config(), ["--config.optimizer.learn_rate=1"])
    file = tmp_path / "config.py"
    file.write_text(
        "from castream_jax.experiment.config import base_config\n"
        "def get_config():\n    c = base_config()\n    c.bogus = 1\n"
    )
    with pytest.raises(ValueError, match=r"config\.py: .*bogus"):
        open_config(file)
    file.write_text("x = 1\n")
    with pytest.raises(ValueError, match="has no function get_config"):
        open_config(file)
    with pytest.raises(ValueError, match=r"There is no config .*absent\.py"):
        open_config(tmp_path / "absent.py")


def test_a_saved_config_opens_to_the_same(tmp_path: Path):
    config = base_config()
    with config.unlocked():
        config.streams.late = stream_config(start_stage=3)
        del config.streams["ca"]
    config.evaluation.methods = ("attention",)
    (tmp_path / "config.json").write_text(config.to_json())
    assert open_config(tmp_path / "config.json").to_dict() == config.to_dict()


def test_an_argument_reaches_get_config(tmp_path: Path):
    file = tmp_path / "config.py"
    file.write_text("def get_config(size='large'):\n    return size\n")
    assert open_config(f"{file}:small") == "small"
    assert open_config(file) == "large"


def test_a_config_finds_the_common_of_its_folder(tmp_path: Path, monkeypatch):
    """From anywhere, whatever the folder is called; of two folders each has its own, and nothing stays behind."""
    for number in (1, 2):
        folder = tmp_path / f"configs, number {number}"
        (folder / "below").mkdir(parents=True)
        (folder / "common.py").write_text(f"def name(form):\n    return f'{{form}} {{NUMBER}}'\nNUMBER = {number}\n")
        for file in (folder / "beside.py", folder / "below" / "one.py"):
            file.write_text("from common import name\ndef get_config(form=''):\n    return name(form)\n")
    monkeypatch.chdir(tmp_path / "configs, number 1" / "below")
    path, modules = list(sys.path), set(sys.modules)
    assert open_config("one.py:a") == "a 1"
    assert open_config(f"{tmp_path / 'configs, number 2' / 'below' / 'one.py'}:b") == "b 2"
    assert open_config("../beside.py:c") == "c 1"
    assert (sys.path, set(sys.modules)) == (path, modules)
    monkeypatch.setitem(sys.modules, "common", sys)  # of whoever called
    assert open_config("one.py:d") == "d 1"
    assert sys.modules["common"] is sys


def test_a_config_without_its_common_is_told_where_to_put_it(tmp_path: Path):
    file = Path(shutil.copy(CONFIGS / "imagenet" / "resnet50.py", tmp_path))
    with pytest.raises(ValueError, match=r"resnet50\.py: .*'common'.*copy configs/common\.py beside it"):
        open_config(file)
    shutil.copy(CONFIGS / "common.py", tmp_path)
    assert open_config(file).to_json() == open_config(CONFIGS / "imagenet" / "resnet50.py").to_json()


# All but the poster's figure, which trains nothing, and the quickstart, which is in the package.
RECIPES = {str(file.relative_to(ROOT)) for file in CONFIGS.glob("*/*.py")} - {
    "configs/indoor67/resnet50.py",
    "configs/digits/quickstart.py",
} | {"castream_jax/experiment/quickstart.py"}


@pytest.mark.parametrize("path", sorted(RECIPES))
def test_every_config_shows_its_recipe(path: str):
    """A reader finds what decides the numbers in the config itself."""
    shown = set(re.findall(r"(\w+)=", (ROOT / path).read_text()))
    data, optimizer = {"source", "image_size", "resize"}, {"learning_rate", "momentum", "weight_decay", "schedule"}
    assert data | optimizer | {"target", "loss", "epochs", "batch_size"} <= shown
    if "pretrain" not in path:
        assert {"methods", "protocol", "max_images"} <= shown
