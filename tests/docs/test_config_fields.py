"""The page of the config's fields is what the code says, and a printed config is one that can be read."""

import json
from pathlib import Path

from config_fields import PAGE, field_rows, page_with
import pytest

from castream_jax.cli import main
from castream_jax.experiment.config import open_config

CONFIG = str(Path(__file__).parents[2] / "configs" / "cifar10" / "resnet20.py")


def test_the_page_of_fields_is_current():
    rows = {row.name: row for fields in field_rows().values() for row in fields}
    assert rows["train.epochs"] == ("train.epochs", "int", "90", "passes over the training images", "at least 1")
    assert PAGE.read_text() == page_with(field_rows()), "run python tests/config_fields.py --write"


def test_a_printed_config_is_the_one_that_would_be_trained(tmp_path: Path, capsys: pytest.CaptureFixture):
    arguments = ["train", "--config", CONFIG, "--config.train.epochs=3", "--config.evaluation.methods=cam,gradcam"]
    assert main([*arguments, "--print-config=json"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed)["train"]["epochs"] == 3
    (tmp_path / "printed.json").write_text(printed)
    config = open_config(tmp_path / "printed.json")
    assert config.evaluation.methods == ("cam", "gradcam")

    assert main([*arguments, "--print-config"]) == 0
    text = capsys.readouterr().out
    read = open_config(CONFIG)  # each line sets its field: the text is Python
    exec(text, {"config": read})
    assert read.to_json() == config.to_json()
    assert text.startswith("config.name = 'CIFAR-10, ResNet-20'\n")


def test_training_without_a_folder_is_refused(capsys: pytest.CaptureFixture):
    assert main(["train", "--config", CONFIG]) == 2
    assert "There is no --workdir: give the folder" in capsys.readouterr().err
