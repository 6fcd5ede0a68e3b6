"""Which images a checkpoint is chosen by, and whether they are those that are reported."""

from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

from castream_jax.data.from_config import check_fraction
from castream_jax.experiment.config import Config


class ChosenCheckpoint(NamedTuple):
    """A checkpoint that was restored.

    Attributes:
        which: `config.evaluation.checkpoint`.
        step: its number.
        score: of its validation; None where it had none.
        validated_on: name of the split that the validation read; None where there was none.
    """

    which: str
    step: int
    score: float | None
    validated_on: str | None


def validation_data(config: Config) -> Literal["validation", "test"]:
    """What a training validates on.

    Raises:
        ValueError: if `config.train.validate_on` is unknown, or names validation data and there are none.
    """
    there = check_fraction(config.data) > 0 or config.data.validation_split != ""
    wanted = config.train.validate_on
    if wanted not in ("", "validation", "test"):
        raise ValueError(f"config.train.validate_on must be 'validation' or 'test', got {wanted!r}.")
    if wanted == "validation" and not there:
        raise ValueError(
            "config.train.validate_on='validation' needs images to validate on: set config.data.validation_fraction, "
            "such as 0.1 of the training split, or config.data.validation_split, the name of a split."
        )
    if config.data.validation_split and config.data.validation_split == config.data.train_split:
        raise ValueError(
            f"config.data.validation_split={config.data.validation_split!r} is the split that is trained on: name "
            "another one, or hold images out of it with config.data.validation_fraction=0.1."
        )
    return "test" if wanted == "test" or not there else "validation"


def validated_split(config: Config) -> str:
    """Name of the split whose images a training validates on; a part of the training split has its name."""
    if validation_data(config) == "test":
        return reported_split(config)
    data = config.data
    if data.validation_split or not data.test_fraction:
        return data.validation_split or data.train_split
    return f"{data.validation_fraction:g} of what is left of {data.train_split}"


def reported_split(config: Config) -> str:
    """Name of the split that an evaluation reports."""
    data = config.data
    return f"{data.test_fraction:g} of {data.train_split}" if data.test_fraction else data.test_split


def is_reported(config: Config, split: str | None) -> bool:
    """Whether a split holds what an evaluation reports, under whichever spelling of its path."""
    if split is None:
        return False
    where = config.data.train_split if config.data.test_fraction else config.data.test_split
    return split == reported_split(config) or PurePosixPath(split) == PurePosixPath(where)


def check_selection(config: Config, chosen: ChosenCheckpoint) -> None:
    """Raises a ValueError if the best checkpoint was chosen by what is to be reported, and nobody asked for that."""
    if chosen.which == "best" and is_reported(config, chosen.validated_on) and config.train.validate_on != "test":
        raise ValueError(
            f"config.evaluation.checkpoint='best' was chosen on the split {chosen.validated_on!r}, the one that is "
            "reported: such numbers are too good. Train with --config.data.validation_fraction=0.1 or "
            "--config.data.validation_split=NAME, evaluate the last checkpoint, or say "
            "--config.train.validate_on=test, which the report then repeats."
        )


def describe_checkpoint(config: Config, chosen: ChosenCheckpoint) -> dict[str, Any]:
    """What a summary says of the checkpoint it evaluates."""
    on_reported = chosen.which == "best" and is_reported(config, chosen.validated_on)
    return {**chosen._asdict(), "selected_on_reported_split": on_reported}
