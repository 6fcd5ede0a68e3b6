"""What the page's charts show: training over epochs, and insertion and deletion over the share of pixels."""

from collections.abc import Mapping, Sequence
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from castream_jax.reporting.charts import MAX_POINTS, Chart, Series, line_chart, thin
from castream_jax.reporting.tables import BASELINE, head_title, method_title, ordered_heads, ordered_methods

STREAM_STYLES = 7  # CSS classes s1 … s7 of report.html.j2; s0 is GAP


class TrainingCurves(NamedTuple):
    """Charts over epochs; `averaged` is true where points are means of several log lines."""

    charts: list[Chart]
    averaged: bool


class CausalCharts(NamedTuple):
    """Insertion and deletion charts, one per attribution method that has the curves."""

    insertion: list[Chart]
    deletion: list[Chart]


def training_curves(path: Path, heads: Sequence[str]) -> TrainingCurves | None:
    """Loss, accuracy (percent) and learning rate over epochs; None where `path` is absent or holds no curve.

    Args:
        path: `logs/metrics.jsonl`, a JSON object per line.
        heads: head names, which the log's fields `<head>/loss` and `<head>/accuracy` begin with.
    """
    if not path.is_file():
        return None
    records = _read_log(path)
    charts = []
    for title, field, unit in (("Loss", "loss", 1.0), ("Accuracy (%)", "accuracy", 100.0)):
        lines = []
        for head in heads:
            epoch, value = _curve(records, f"{head}/{field}")
            if len(epoch):
                lines.append(Series(head_title(head), _style(head, heads), thin(epoch), thin(unit * value)))
        if lines:
            charts.append(line_chart(title, lines, x_label="epoch"))
    epoch, learning_rate = _curve(records, "learning_rate")
    if len(epoch):
        line = Series("Learning rate", "", thin(epoch), thin(learning_rate))
        charts.append(line_chart("Learning rate", [line], x_label="epoch"))
    return TrainingCurves(charts, averaged=len(records) > MAX_POINTS) if charts else None


def causal_charts(path: Path, summary: Mapping[str, Any]) -> CausalCharts | None:
    """Mean insertion and deletion curves with their 95 % bands, all on one scale of probability.

    Args:
        path: `evaluation/curves.parquet`, which may be absent: a row per head x method x curve with `mean`, `low` and
            `high` at equal steps of the share of pixels.
        summary: contents of `evaluation/summary.json`.
    """
    if not path.is_file():
        return None
    curves = {(r["head"], r["method"], r["curve"]): r for r in pq.ParquetFile(path).read().to_pylist()}
    heads = ordered_heads(summary)
    highest = max(max(row["high"]) for row in curves.values())
    charts = CausalCharts([], [])
    for kind, target in charts._asdict().items():
        for method in ordered_methods(summary):
            lines = []
            for head in heads:
                if row := curves.get((head, method, kind)):
                    mean, low, high = (np.asarray(row[name]) for name in ("mean", "low", "high"))
                    share = np.linspace(0, 100, len(mean))
                    lines.append(Series(head_title(head), _style(head, heads), share, mean, (low, high)))
            if lines:
                limits = (0.0, min(highest, 1.0))
                x_label = f"pixels {'inserted' if kind == 'insertion' else 'deleted'} (%)"
                target.append(line_chart(method_title(method), lines, x_label, y_limits=limits))
    return charts


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


def _style(head: str, heads: Sequence[str]) -> str:
    """CSS class of a head's lines, the same in every chart."""
    if head == BASELINE:
        return "s0"
    streams = [h for h in heads if h != BASELINE]
    return f"s{1 + streams.index(head) % STREAM_STYLES}"
