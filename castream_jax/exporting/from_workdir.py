"""What there is to export of a trained workdir: its model, and what is known of it."""

from collections.abc import Callable, Mapping
import json
import os
from pathlib import Path
from typing import Any, Literal

from castream_jax.backbones import fingerprint
from castream_jax.evaluation.identity import head_digests
from castream_jax.experiment.build import class_names_of
from castream_jax.experiment.config import Config
from castream_jax.experiment.restore import restore_checkpoint
from castream_jax.experiment.selection import is_reported
from castream_jax.experiment.workdir import Workdir
from castream_jax.exporting.description import INCLUDED, Description, describe
from castream_jax.model import ImageSpec, Model
from castream_jax.runtime.progress import Progress


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
        ValueError: as `restore_checkpoint` and `describe`.
    """
    workdir = Workdir.at(workdir)
    config = workdir.open_config()
    config.evaluation.checkpoint = checkpoint
    model, chosen = restore_checkpoint(config, workdir)
    say = Progress("export", total=0, unit="files").say
    if chosen.which == "best" and is_reported(config, chosen.validated_on):
        say(f"the best checkpoint was chosen on the split {chosen.validated_on!r}: numbers of that split are too good")
    summary = _summary(workdir, model, say)
    names, upright = class_names_of(config, workdir), config.data.exif_orientation
    images = ImageSpec(config.data.image_size, config.data.resize, names, upright)
    if not images.class_names:
        say("class names are left out: there is no evaluation, and the data cannot be read")
    model.images = images
    return model, describe(
        model,
        trunk=config.backbone.weights if trunk == "reference" else trunk,
        config=_without_paths(config),
        evaluation=None if summary is None else {k: v for k, v in summary.items() if k != "class_names"},
    )


def _summary(workdir: Workdir, model: Model, say: Callable[[str], None]) -> Mapping[str, Any] | None:
    run = workdir.read_run()
    if not run or not workdir.summary.is_file():
        say("this workdir was not evaluated: the card has no metrics (castream evaluate)")
        return None
    summary = workdir.read_summary()
    ours = {"trunk": fingerprint(model.backbone), "heads": head_digests(model), "dtype": model.backbone.dtype}
    if run["hash"] != summary["run"] or any(run["identity"].get(field) != ours[field] for field in ours):
        say("the evaluation in this workdir is one of other parameters: the card has no metrics (castream evaluate)")
        return None
    return summary


def _without_paths(config: Config) -> dict[str, Any]:
    """The config as plain values; where things lie on this machine is no concern of those who get the export."""
    values = json.loads(config.to_json())
    for section, field in (("data", "path"), ("backbone", "weights")):
        values[section][field] = Path(values[section][field]).name
    values["imports"] = [Path(path).name for path in values["imports"]]
    return values
