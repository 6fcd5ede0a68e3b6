"""The folder of one experiment, and which experiment it belongs to."""

from collections.abc import Iterator, Mapping
import json
import os
from pathlib import Path
from typing import Any

import jax

from castream_jax.experiment.config import Config, open_config
from castream_jax.experiment.imports import store_imports
from castream_jax.runtime.atomic_files import write_atomically

# Fields that may differ between runs in one workdir: where things lie and how fast they are read, not what is computed.
_LOCATIONS = {
    *("data.path", "data.num_threads", "data.num_workers", "data.on_error", "backbone.weights"),
    *("train.log_every", "train.checkpoint_every", "train.validate_every", "train.wandb"),
}
# Sections that decide what is trained.
_TRAINED = ("seed", "data", "backbone", "streams", "optimizer", "train")


def claim_workdir(config: Config, workdir: str | os.PathLike[str]) -> Path:
    """Creates `workdir` and its `config.json`, or checks that the one there describes the same training.

    Returns:
        The absolute path: Orbax, given a relative one, fails in a thread after `save` has returned.

    Raises:
        ValueError: if the workdir belongs to another experiment; the message lists the fields that differ.
    """
    workdir = Path(workdir).resolve()
    path = workdir / "config.json"
    if path.exists():
        # Opened as a config, a field that is younger than the workdir has its default.
        there, here = (dict(_flatten(_trained_part(json.loads(c.to_json())))) for c in (open_config(path), config))
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
        workdir.mkdir(parents=True, exist_ok=True)
        write_atomically(path, store_imports(config, workdir).to_json(indent=2) + "\n")
    return workdir


def _trained_part(config: Mapping[str, Any]) -> dict[str, Any]:
    return {section: config.get(section) for section in _TRAINED}


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
