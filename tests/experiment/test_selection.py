"""The best checkpoint is not chosen by what is reported, unless somebody says so, which the report repeats."""

import json
from pathlib import Path

import pytest

from castream_jax.evaluation import evaluate
from castream_jax.experiment.checkpoint import Checkpoints
from castream_jax.experiment.config import base_config
from castream_jax.experiment.selection import ChosenCheckpoint, check_selection, is_reported, validated_split
from castream_jax.reporting import write_report


def about_of(workdir: Path) -> list[tuple[Path, dict]]:
    paths = sorted(workdir.glob("checkpoints/*/about/metadata"))
    return [(path, json.loads(path.read_text())) for path in paths]


@pytest.fixture
def validated(trained_workdir: Path, monkeypatch):
    """The trained workdir, as if its checkpoints had been validated on a split."""
    monkeypatch.setattr("castream_jax.experiment.checkpoint.changed_file", lambda folder: None)

    def validated(split: str | None, old: bool = False) -> Path:
        for path, about in about_of(trained_workdir):
            about |= {"score": 0.5, "validated_on": split}
            if old:
                del about["validated_on"]
            path.write_text(json.dumps(about))
        return trained_workdir

    return validated


@pytest.mark.parametrize("old", [False, True])
def test_best_is_refused_where_it_was_chosen_on_the_reported_split(tiny_config, validated, old: bool):
    workdir = validated("test", old)
    config = tiny_config(evaluation={"checkpoint": "best"})
    with pytest.raises(ValueError, match=r"'best' was chosen on the split 'test', the one that is reported"):
        evaluate(config, workdir)
    assert not (workdir / "evaluation").exists()


def test_the_report_repeats_that_it_was_asked_for(tiny_config, validated):
    workdir = validated("test")
    small = {"checkpoint": "best", "methods": ("attention",), "max_images": 2, "gallery": 0}
    summary = evaluate(tiny_config(evaluation=small, train={"validate_on": "test"}), workdir)
    step = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert summary["checkpoint"] == {
        "which": "best",
        "step": step,
        "score": 0.5,
        "validated_on": "test",
        "selected_on_reported_split": True,
    }
    assert "the split reported here, so these numbers are too good" in write_report(workdir).read_text()


def test_best_by_other_images_is_evaluated(tiny_config):
    config = tiny_config(evaluation={"checkpoint": "best"}, data={"source": "image_folder"})
    check_selection(config, ChosenCheckpoint("best", 3, 0.5, "val"))
    check_selection(config, ChosenCheckpoint("last", 3, 0.5, "test"))
    with pytest.raises(ValueError, match="the one that is reported"):
        check_selection(config, ChosenCheckpoint("best", 3, 0.5, "./test/"))


def test_what_a_training_validates_on():
    config = base_config()
    assert validated_split(config) == "test"
    config.train.validate_on = "validation"
    with pytest.raises(ValueError, match=r"validate_on='validation' needs images to validate on: set config.data.vali"):
        validated_split(config)
    config.data.validation_fraction = 0.1
    assert validated_split(config) == "train"
    assert not is_reported(config, "train")
    config.data.test_fraction = 0.2
    assert not is_reported(config, validated_split(config))
    assert is_reported(config, "train")  # which holds the test images, too
    config.data.update(validation_fraction=0.0, validation_split="val")
    assert validated_split(config) == "val"
    config.train.validate_on = "tset"
    with pytest.raises(ValueError, match="must be 'validation' or 'test', got 'tset'"):
        validated_split(config)


def test_scores_of_another_split_are_no_rivals(tmp_path: Path):
    for step, score, split in ((1, 0.9, "test"), (2, 0.4, "val"), (3, 0.3, "val")):
        folder = tmp_path / "checkpoints" / str(step) / "about"
        folder.mkdir(parents=True)
        (folder / "metadata").write_text(json.dumps({"config": {}, "score": score, "validated_on": split}))
    with Checkpoints(tmp_path, fingerprint="t", read_only=True) as checkpoints:
        assert checkpoints.best_step == 2
