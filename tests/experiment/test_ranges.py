"""Values of fields that cannot be: each is refused by name before anything is written, and no config has one."""

from pathlib import Path

import pytest

from castream_jax.evaluation.open import open_evaluation
from castream_jax.experiment.config import base_config, open_config, override
from castream_jax.experiment.ranges import check_evaluation_fields, check_training_fields
from castream_jax.runtime.mesh import data_mesh
from castream_jax.training import train

ROOT = Path(__file__).parents[2]

BOTH = [
    ("data.image_size=0", "must be between 1 and 8192, got 0."),
    ("data.image_size=100000", "must be between 1 and 8192, got 100000."),
    ("data.canvases_per_digit=0", "must be at least 1, got 0."),
    ("data.seed=-1", "must be at least 0, got -1."),
    ("data.num_threads=-2", "must be at least -1, got -2."),
    ("data.num_workers=-1", "must be at least 0, got -1."),
    ("data.max_pixels=-1", "must be at least 0, got -1."),
    ("data.test_fraction=-0.5", "must be at least 0 and less than 1, got -0.5."),
    ("data.validation_fraction=nan", "must be a finite number, got nan."),
]
TRAINING = [
    ("seed=-1", "must be between 0 and 4294967295, got -1."),
    ("data.brightness=1.5", "must be between 0 and 1, got 1.5."),
    ("data.crop_padding=-1", "must be between 0 and config.data.image_size, which is 224, got -1."),
    ("data.crop_padding=225", "must be between 0 and config.data.image_size, which is 224, got 225."),
    ("streams.ca.seed=4294967296", "must be between 0 and 4294967295, got 4294967296."),
    ("streams.ca.learning_rate=-1.0", "must be at least 0, got -1.0."),
    ("optimizer.learning_rate=0.0", "must be greater than 0, got 0.0."),
    ("optimizer.learning_rate=inf", "must be a finite number, got inf."),
    ("optimizer.momentum=1.0", "must be at least 0 and less than 1, got 1.0."),
    ("optimizer.weight_decay=nan", "must be a finite number, got nan."),
    ("optimizer.decay_every=-1.0", "must be at least 0, got -1.0."),
    ("optimizer.decay_factor=0.1", "must be at least 1, as the learning rate is divided by it, got 0.1."),
    ("optimizer.warmup_epochs=-1.0", "must be at least 0, got -1.0."),
    ("optimizer.reference_batch=-1", "must be at least 0, got -1."),
    ("train.target=stream", "must be 'streams' or 'backbone', got 'stream'."),
    ("train.loss=mse", "must be 'cross_entropy' or 'binary_cross_entropy' or 'distillation', got 'mse'."),
    ("train.batch_norm=on", "must be 'train' or 'frozen', got 'on'."),
    ("train.label_smoothing=1.0", "must be at least 0 and less than 1, got 1.0."),
    ("train.epochs=0", "must be at least 1, got 0."),
    ("train.batch_size=0", "must be at least 1, got 0."),
    ("train.log_every=0", "must be at least 1, got 0."),
    ("train.checkpoint_every=0", "must be at least 1, got 0."),
    ("train.validate_every=-1", "must be at least 0, got -1."),
]
EVALUATION = [
    ("evaluation.batch_size=0", "must be at least 1, got 0."),
    ("evaluation.max_images=-1", "must be at least 0, got -1."),
]


@pytest.mark.parametrize(("field", "words"), [*BOTH, *TRAINING])
def test_a_training_refuses(tmp_path: Path, field: str, words: str):
    config = override(base_config(), [f"--config.{field}"])
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole sentence is compared
        train(config, tmp_path / "run")
    assert str(error.value) == f"config.{field.partition('=')[0]} {words}"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("field", "words"), [*BOTH, *EVALUATION])
def test_an_evaluation_refuses(tmp_path: Path, field: str, words: str):
    config = override(base_config(), [f"--config.{field}"])
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole sentence is compared
        open_evaluation(config, tmp_path / "run", data_mesh())
    assert str(error.value) == f"config.{field.partition('=')[0]} {words}"


def test_what_means_off_is_allowed_and_an_evaluation_asks_for_no_recipe():
    fields = ("optimizer.decay_every=0", "optimizer.reference_batch=0", "train.validate_every=0", "data.max_pixels=0")
    check_training_fields(override(base_config(), [f"--config.{field}" for field in fields]))
    check_evaluation_fields(override(base_config(), ["--config.data.brightness=2", "--config.train.epochs=0"]))


@pytest.mark.parametrize("path", sorted(str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*/*.py")))
def test_every_config_is_allowed(path: str):
    config = open_config(ROOT / path)
    check_training_fields(config)
    check_evaluation_fields(config)
