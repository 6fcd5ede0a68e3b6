"""The curves that a workdir holds: training over epochs, insertion and deletion over the share of pixels."""

from collections.abc import Mapping, Sequence
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
import numpy as np
import pyarrow.parquet as pq

from castream_jax.drawing.line_chart import PLAIN, Chart, Series, head_series, line_chart
from castream_jax.drawing.titles import head_title

_MAX_POINTS = 300  # of a line: more than a screen can show


class TrainingCurves(NamedTuple):
    """Charts over epochs; `averaged` is true where points are means of several log lines.

    What has fewer than three points is no curve: `few` says it in words.
    """

    charts: list[Chart]
    averaged: bool
    few: list[str]


# Title, field of the log, unit, greatest value; a distillation measures agreement with GAP instead of accuracy.
_MEASURES = (
    ("Loss", "loss", 1.0, math.inf),
    ("Accuracy (%)", "accuracy", 100.0, 100.0),
    ("Agreement with GAP (%)", "agreement", 100.0, 100.0),
)
_CURVE = 3  # points


def training_curves(path: Path, heads: Sequence[str]) -> TrainingCurves | None:
    """Loss, accuracy (percent) and learning rate over epochs; None where `path` is absent or holds no curve.

    Args:
        path: `logs/metrics.jsonl`, a JSON object per line.
        heads: head names, which the fields of the log, such as `<head>/loss`, begin with.
    """
    if not path.is_file():
        return None
    records = _read_log(path)
    charts, few = [], []
    for title, field, unit, most in _MEASURES:
        lines = []
        for head in heads:
            epoch, value = _curve(records, f"{head}/{field}")
            if 0 < len(epoch) < _CURVE:
                points = (f"{unit * y:.3g} after {x:.2g} epochs" for x, y in zip(epoch, value, strict=True))
                few.append(f"{title} of {head_title(head)}: {', '.join(points)}.")
            elif len(epoch):
                lines.append(head_series(head, heads, _thin(epoch), _thin(unit * value)))
        if lines:
            charts.append(line_chart(title, lines, x_label="epoch", y_most=most))
    epoch, learning_rate = _curve(records, "learning_rate")
    if len(epoch) >= _CURVE:
        line = Series("Learning rate", PLAIN, _thin(epoch), _thin(learning_rate))
        charts.append(line_chart("Learning rate", [line], x_label="epoch"))
    return TrainingCurves(charts, len(records) > _MAX_POINTS, few) if charts or few else None


def read_causal_curves(path: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Mean insertion and deletion curves with their 95 % bands, by head, method and `"insertion"` or `"deletion"`.

    Args:
        path: `evaluation/curves.parquet`, a row per curve with `mean`, `low` and `high` at equal steps of the share of
            pixels; absent where the evaluation kept none.
    """
    rows = pq.ParquetFile(path).read().to_pylist() if path.is_file() else []
    return {(row["head"], row["method"], row["curve"]): row for row in rows}


def _read_log(path: Path) -> list[dict[str, Any]]:
    """Log records in order of step; where a resumed run logged a step again, the later line counts."""
    records: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue  # a killed run leaves its last line half written
        records[record["step"]] = {**records.get(record["step"], {}), **record}
    return [records[step] for step in sorted(records)]


def _curve(records: Sequence[Mapping[str, Any]], field: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and values of the records that carry a finite `field`."""
    points = [(r["epoch"], r[field]) for r in records if r.get(field) is not None]
    points = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    points = points[np.isfinite(points).all(axis=1)]
    return points[:, 0], points[:, 1]


def _thin(values: Float[np.ndarray, " points"]) -> Float[np.ndarray, " fewer"]:
    """Averages consecutive values until at most `_MAX_POINTS` are left."""
    group = math.ceil(len(values) / _MAX_POINTS)
    if group <= 1:
        return values
    starts = np.arange(0, len(values), group)
    return np.add.reduceat(values, starts) / np.diff(starts, append=len(values))
