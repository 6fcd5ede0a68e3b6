"""Several evaluated experiments side by side, and how each differs from the first, paired image by image.

Numbers of different protocols, data or images must not be subtracted: they stand beside each other under a warning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from castream_jax.drawing.titles import head_title
from castream_jax.evaluation.statistics import bootstrap_means, interval
from castream_jax.experiment.results import read_parts
from castream_jax.experiment.workdir import Workdir
from castream_jax.reporting.extreme_cases import rows_by
from castream_jax.reporting.metric_table import (
    BASELINE_METHODS,
    COLUMNS,
    METRICS,
    TOP5,
    Column,
    MetricCell,
    difference_cell,
    ordered_heads,
    ordered_methods,
    percent_of,
    value_cell,
)

RECOGNITION = (COLUMNS[-1], TOP5)
_CORRECT = {"accuracy": "correct", "top5_accuracy": "correct_top5"}  # columns of the predictions

# {(method, head): {measure: [low, high]}}; recognition under an empty method.
Intervals = dict[tuple[str, str], dict[str, list[float]]]


class EvaluatedExperiment(NamedTuple):
    """An evaluated workdir: its name in the tables, what it measured, and what that belongs to."""

    label: str
    workdir: Workdir
    summary: Mapping[str, Any]
    identity: Mapping[str, Any]


class Conflict(NamedTuple):
    """Something that must be equal and is not; `recognition` where it spoils accuracies too."""

    what: str
    first: str
    other: str
    recognition: bool


class ComparedRow(NamedTuple):
    """Values of one head of one experiment, or (`is_difference`) that minus the same head of the first experiment."""

    method: str
    title: str
    cells: tuple[MetricCell, ...]
    is_difference: bool = False

    @property
    def is_baseline(self) -> bool:
        return self.method in BASELINE_METHODS


@dataclass(frozen=True)
class SideBySide:
    """What the page prints; rows that belong together are a unit, as in the main table."""

    experiments: list[EvaluatedExperiment]
    conflicts: dict[str, list[Conflict]]
    recognition_columns: tuple[Column, ...]
    recognition: list[list[ComparedRow]]
    metrics: list[list[ComparedRow]]


def compare_experiments(workdirs: Sequence[Path], names: Sequence[str]) -> SideBySide:
    """Reads the evaluations and subtracts the first from each other, where that has a meaning.

    Args:
        workdirs: evaluated workdirs, the first the one that the others are compared with.
        names: of the experiments; where two are alike, their folders tell them apart.

    Raises:
        ValueError: a workdir is given twice.
    """
    workdirs = [workdir.resolve() for workdir in workdirs]
    if len(set(workdirs)) < len(workdirs):
        raise ValueError("A workdir is to be compared with itself: give each workdir once.")
    experiments = [
        EvaluatedExperiment(label, workdir, workdir.read_summary(), workdir.read_run().get("identity", {}))
        for label, workdir in zip(_labels(workdirs, names), map(Workdir.at, workdirs), strict=True)
    ]
    first, *others = experiments
    conflicts = {other.label: find_conflicts(first, other) for other in others}
    intervals = {other.label: paired_intervals(first, other, conflicts[other.label]) for other in others}
    heads = list(dict.fromkeys(head for e in experiments for head in ordered_heads(e.summary)))
    methods = list(dict.fromkeys(method for e in experiments for method in ordered_methods(e.summary)))
    methods.sort(key=lambda method: method in BASELINE_METHODS)
    has_top5 = any(TOP5.key in entry for e in experiments for entry in e.summary["heads"].values())
    columns = RECOGNITION if has_top5 else RECOGNITION[:1]

    def units(method: str, columns: Sequence[Column]) -> list[list[ComparedRow]]:
        found = []
        for head in heads:
            reference = _entry(first, method, head)
            for experiment in experiments:
                entry = _entry(experiment, method, head)
                if entry is None:
                    continue
                title = f"{head_title(head)}, {experiment.label}"
                cells = tuple(value_cell(percent_of(entry.get(c.key)), entry, c.key) for c in columns)
                unit = [ComparedRow(method, title, cells)]
                blocked = any(c.recognition or method for c in conflicts.get(experiment.label, ()))
                if experiment is not first and reference is not None and not blocked:
                    paired = {"intervals": intervals[experiment.label].get((method, head), {})}
                    cells = tuple(
                        difference_cell(c, percent_of(entry.get(c.key)) - percent_of(reference.get(c.key)), paired)
                        for c in columns
                    )
                    unit.append(ComparedRow(method, f"− {first.label}", cells, is_difference=True))
                found.append(unit)
        return found

    metrics = [unit for method in methods for unit in units(method, METRICS)]
    return SideBySide(experiments, conflicts, columns, units("", columns), metrics)


def find_conflicts(first: EvaluatedExperiment, other: EvaluatedExperiment) -> list[Conflict]:
    """Protocol, data and images that differ; other trunks, streams and methods are what one compares."""
    conflicts = []
    protocols = [f"{e.summary['protocol']['name']} ({e.summary['protocol']['hash']})" for e in (first, other)]
    if protocols[0] != protocols[1]:
        conflicts.append(Conflict("protocol", *protocols, recognition=False))
    names = [e.summary["class_names"] for e in (first, other)]
    if names[0] != names[1]:
        texts = [f"{len(classes):,} ({', '.join(classes[:3])} …)" for classes in names]
        conflicts.append(Conflict("classes", *texts, recognition=True))
    counts = [e.summary["accuracy_images"] for e in (first, other)]
    if counts[0] != counts[1]:
        conflicts.append(Conflict("images classified", *(f"{count:,}" for count in counts), recognition=True))
    here, there = (e.identity.get("data", {}) for e in (first, other))
    for field in sorted(here.keys() & there.keys()):
        if here[field] != there[field] and field != "images":
            what = {"names": "image names (digest)", "content": "image files (digest)"}.get(field, f"data.{field}")
            conflicts.append(Conflict(what, str(here[field])[:12], str(there[field])[:12], recognition=True))
    explained = [_explained(e) for e in (first, other)]
    counts = [e.summary["images"] for e in (first, other)]
    if counts[0] != counts[1] or explained[0] != explained[1]:
        # With different data, equal indices do not mean equal images.
        common = f" ({len(explained[0] & explained[1]):,} in common)" if not conflicts_in_data(conflicts) else ""
        conflicts.append(Conflict("images explained", *(f"{n:,}{common}" for n in counts), recognition=False))
    return conflicts


def conflicts_in_data(conflicts: Sequence[Conflict]) -> bool:
    """Whether even accuracies cannot be compared."""
    return any(conflict.recognition for conflict in conflicts)


def paired_intervals(
    first: EvaluatedExperiment, other: EvaluatedExperiment, conflicts: Sequence[Conflict]
) -> Intervals:
    """95 % bootstrap intervals of the mean differences other - first over the same images, where they can be taken."""
    found: Intervals = {}
    if not conflicts_in_data(conflicts):
        found |= _paired([e.workdir.predictions for e in (first, other)], _CORRECT)
    if not conflicts:
        found |= _paired([e.workdir.rows for e in (first, other)], {metric.key: metric.key for metric in METRICS})
    return found


def _paired(folders: Sequence[Path], fields: Mapping[str, str]) -> Intervals:
    columns = ("index", "label", "head", "method", *fields.values())
    tables = [read_parts(folder, columns) for folder in folders]
    if tables[0] is None or tables[1] is None:
        return {}
    fields = {key: name for key, name in fields.items() if all(name in t.column_names for t in tables if t is not None)}
    a, b = (_by_key(table, list(fields.values())) for table in tables if table is not None)
    images = next(iter(a.values()))[0]
    keys = [k for k in a if k in b and all(np.array_equal(side[k][0], images) for side in (a, b))]
    if not keys:
        return {}
    differences = np.concatenate([b[key][1] - a[key][1] for key in keys], axis=1)
    low, high = interval(bootstrap_means(differences, images[:, 0]))
    ends = np.stack([low, high], axis=1).reshape(len(keys), len(fields), 2)
    return {key: dict(zip(fields, ends[k].tolist(), strict=True)) for k, key in enumerate(keys)}


def _by_key(table: pa.Table, fields: Sequence[str]) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Per (method, head): index and label of the rows, sorted, `[rows, 2]`, and the fields `[rows, fields]`."""
    images = np.stack([table[name].to_numpy() for name in ("index", "label")], axis=1)
    values = np.stack([table[field].to_numpy().astype(np.float64) for field in fields], axis=1)
    if "method" not in table.column_names:
        table = table.append_column("method", pa.array([""] * len(table)))
    result = {}
    for key, at in rows_by(table, ("method", "head")).items():
        at = at[np.lexsort((images[at, 1], images[at, 0]))]
        result[key] = images[at], values[at]
    return result


def _explained(experiment: EvaluatedExperiment) -> set[tuple[int, int]]:
    """Index and label of what was explained; empty without per-image results."""
    table = read_parts(experiment.workdir.rows, ("index", "label"))
    if table is None:
        return set()
    distinct = table.group_by(["index", "label"]).aggregate([])  # rows repeat an image for every head and method
    return set(zip(distinct["index"].to_pylist(), distinct["label"].to_pylist(), strict=True))


def _entry(experiment: EvaluatedExperiment, method: str, head: str) -> Mapping[str, Any] | None:
    if not method:
        return experiment.summary["heads"].get(head)
    entries = (e for e in experiment.summary["metrics"] if (e["head"], e["method"]) == (head, method))
    return next(entries, None)


def _labels(workdirs: Sequence[Path], names: Sequence[str]) -> list[str]:
    for labels in (list(names), [workdir.name for workdir in workdirs]):
        if len(set(labels)) == len(labels):
            return labels
    return [str(workdir) for workdir in workdirs]
