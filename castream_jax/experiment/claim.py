"""Which experiment a workdir belongs to."""

from collections.abc import Iterator, Mapping
import json
import os
from typing import Any

import jax

from castream_jax.experiment.config import Config
from castream_jax.experiment.imports import store_imports
from castream_jax.experiment.origins import with_absolute_paths
from castream_jax.experiment.workdir import Workdir
from castream_jax.runtime.atomic_files import write_json

# Fields that may differ between runs in one workdir: where things lie, how fast they are read and what is watched, not
# what is computed.
_LOCATIONS = {
    *("data.path", "data.num_threads", "data.num_workers", "data.on_error", "data.max_pixels", "backbone.weights"),
    *("train.log_every", "train.checkpoint_every", "train.validate_every", "train.wandb"),
    *("train.validate_on", "data.validation_split"),
}
# Sections that decide what is trained.
_TRAINED = ("seed", "data", "backbone", "streams", "optimizer", "train")


def claim_workdir(config: Config, workdir: str | os.PathLike[str]) -> Workdir:
    """Creates `workdir` and its config, with absolute paths, or checks that the one there is of the same training.

    Raises:
        ValueError: if the workdir belongs to another experiment; the message lists the fields that differ.
    """
    workdir = Workdir.at(workdir)
    if workdir.config.exists():
        # Opened as a config, a field that is younger than the workdir has its default.
        there, here = (dict(_flatten(_trained_part(json.loads(c.to_json())))) for c in (workdir.open_config(), config))
        different = [
            f"{field} ({there.get(field, 'absent')!r} there, {here.get(field, 'absent')!r} here)"
            for field in sorted(there.keys() | here.keys())
            if there.get(field) != here.get(field) and field not in _LOCATIONS
        ]
        if different:
            raise ValueError(
                f"{workdir} holds another experiment; these fields differ: {', '.join(different)}. "
                "Give another --workdir, or the same fields."
            )
    elif jax.process_index() == 0:
        workdir.folder.mkdir(parents=True, exist_ok=True)
        stored = store_imports(with_absolute_paths(config), workdir.folder)
        write_json(workdir.config, json.loads(stored.to_json()))
    return workdir


def _trained_part(config: Mapping[str, Any]) -> dict[str, Any]:
    return {section: config.get(section) for section in _TRAINED}


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
