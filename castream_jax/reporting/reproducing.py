"""The command that measures again what a summary says: its settings need not be those that the workdir's config has."""

from collections.abc import Mapping
import json
import shlex
from typing import Any

from castream_jax.drawing.titles import method_title
from castream_jax.experiment.config import base_config
from castream_jax.reporting.metric_table import BASELINE_METHODS

_DATA = ("source", "test_split", "image_size", "resize", "difficult")


def evaluate_command(summary: Mapping[str, Any], run: Mapping[str, Any], config: Mapping[str, Any], folder: str) -> str:
    """`castream evaluate` with the fields that the evaluation was given beside the config of the training.

    Args:
        summary: contents of `evaluation/summary.json`.
        run: contents of `evaluation/run.json`; may be empty.
        config: of the training, as plain values; fields that are younger than it have their defaults.
        folder: of the workdir, as the command names it.
    """
    defaults = json.loads(base_config().to_json())
    identity = run.get("identity", {})
    methods = list(identity.get("methods", dict.fromkeys(entry["method"] for entry in summary["metrics"])))
    with_baselines = set(BASELINE_METHODS) <= set(methods)
    given = [method for method in methods if not (with_baselines and method in BASELINE_METHODS)]
    measured = {
        "evaluation.methods": given,
        "evaluation.baselines": with_baselines,
        "evaluation.reference_method": summary.get("reference_method", ""),
        "evaluation.protocol": summary["protocol"]["name"],
        "evaluation.checkpoint": summary.get("checkpoint", {}).get("which"),
        "evaluation.sanity_images": summary.get("sanity_images"),
        **{f"evaluation.{field}": identity.get(field) for field in ("max_images", "curves")},
        **{f"data.{field}": identity.get("data", {}).get(field) for field in _DATA},
    }
    options = []
    for name, value in measured.items():
        section, _, field = name.partition(".")
        if value not in (None, config.get(section, {}).get(field, defaults[section][field])):
            options.append(shlex.quote(f"--config.{name}={_text(value)}"))
    if not config.get("imports") and any(method_title(method) == method for method in given):
        options.append("--import FILE")  # of a method that is not ours
    return " ".join([f"castream evaluate --workdir {shlex.quote(folder)}", *options])


def _text(value: Any) -> str:
    return ",".join(value) + ("," if len(value) == 1 else "") if isinstance(value, list) else str(value)
