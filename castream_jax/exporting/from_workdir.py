"""What there is to export of a trained workdir: its model, and what is known of it."""

from collections.abc import Mapping
import json
import os
from pathlib import Path
from typing import Any, Literal

from castream_jax.backbones import fingerprint
from castream_jax.config import Config, open_config
from castream_jax.data import ImageTransform, open_source
from castream_jax.evaluation.run import digests_of_heads
from castream_jax.exporting.description import INCLUDED, Description, describe
from castream_jax.model import Model
from castream_jax.progress import Progress
from castream_jax.training.restore import restore_model


def open_workdir(
    workdir: str | os.PathLike[str], *, checkpoint: Literal["last", "best"] = "last", trunk: str = INCLUDED
) -> tuple[Model, Description]:
    """The trained model of a workdir, and its description.

    Class names are those of the evaluation or, where there was none, of the data. The evaluation goes along only if it
    is one of these very heads and this trunk.

    Args:
        workdir: of `castream train`.
        checkpoint: see `config.evaluation.checkpoint`.
        trunk: `"included"`, or `"reference"`: by the name of the weights in the config.

    Raises:
        FileNotFoundError: if it holds no trained model.
        ValueError: as `restore_model` and `describe`.
    """
    workdir = Path(workdir).resolve()
    if not (workdir / "config.json").is_file():
        raise FileNotFoundError(f"{workdir} holds no experiment: run `castream train --workdir {workdir}` first.")
    config = open_config(workdir / "config.json")
    config.evaluation.checkpoint = checkpoint
    model = restore_model(config, workdir)
    summary = _summary(workdir / "evaluation", model)
    names = summary["class_names"] if summary else _class_names(config)
    return model, describe(
        model,
        trunk=config.backbone.weights if trunk == "reference" else trunk,
        class_names=names,
        image_transform=ImageTransform(config.data.image_size, config.data.resize),
        config=_without_paths(config),
        evaluation=None if summary is None else {k: v for k, v in summary.items() if k != "class_names"},
    )


def _summary(evaluation: Path, model: Model) -> Mapping[str, Any] | None:
    say = Progress("export", total=0, unit="files").say
    if not (evaluation / "summary.json").is_file() or not (evaluation / "run.json").is_file():
        say("this workdir was not evaluated: the card has no metrics (castream evaluate)")
        return None
    summary = json.loads((evaluation / "summary.json").read_text(encoding="utf-8"))
    run = json.loads((evaluation / "run.json").read_text(encoding="utf-8"))
    ours = {"trunk": fingerprint(model.backbone), "heads": digests_of_heads(model), "dtype": model.backbone.dtype}
    if run["hash"] != summary["run"] or any(run["identity"].get(field) != ours[field] for field in ours):
        say("the evaluation in this workdir is one of other parameters: the card has no metrics (castream evaluate)")
        return None
    return summary


def _without_paths(config: Config) -> dict[str, Any]:
    """The config as plain values; where things lie on this machine is no concern of those who get the export."""
    values = json.loads(config.to_json())
    for section, field in (("data", "path"), ("backbone", "weights")):
        values[section][field] = Path(values[section][field]).name
    return values


def _class_names(config: Config) -> tuple[str, ...] | None:
    try:
        return tuple(open_source(config.data, "test").class_names)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        Progress("export", total=0, unit="files").say(f"class names are left out, the data cannot be read ({reason})")
        return None
