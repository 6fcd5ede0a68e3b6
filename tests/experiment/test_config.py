"""Configs: defaults, overrides, files, and what is refused."""

from pathlib import Path

from flax import nnx
import pytest

from castream_jax.experiment.build import open_backbone
from castream_jax.experiment.config import base_config, open_config, override, stream_config


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
