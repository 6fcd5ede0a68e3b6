"""The images on which a head under a method does best and worst, by each metric, over all that were explained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from castream_jax.reporting.gallery import anchor, class_name
from castream_jax.reporting.tables import BASELINE_METHODS, METRICS, head_title, method_title, ordered_heads

CASES = 10  # at either end

_COLUMNS = ("index", "name", "label", "prediction", "head", "method", "p", "o", *(metric.key for metric in METRICS))


def extreme_cases(rows: Path, summary: Mapping[str, Any], shown: set[str]) -> dict[str, Any] | None:
    """What the page lists when a metric, a head and a method are chosen; None without per-image results.

    Args:
        rows: folder of `part-*.parquet`.
        summary: contents of `evaluation/summary.json`.
        shown: anchors of the gallery's cards, which the cases link to.

    Returns:
        `images` `{anchor: [name, class, whether it is shown]}`, `classes` `{number: name}` and `cases`
        `{method: {head: {metric: {"best": [[anchor, value, p, o, predicted], …], "worst": …, "ties": …}}}}`, titles as
        printed, fractions, images of equal value in the order of their gain o - p; `ties` counts the images that share
        the first value at either end.
    """
    parts = [pq.ParquetFile(path).read(_COLUMNS) for path in sorted(rows.glob("part-*.parquet"))]
    if not parts or not sum(map(len, parts)):
        return None
    table = pa.concat_tables(parts)
    columns = {name: table[name].to_numpy() for name in _COLUMNS}
    images: dict[str, list[Any]] = {}
    classes: dict[int, str] = {}
    cases: dict[str, Any] = {}
    for method in dict.fromkeys(columns["method"]):
        for head in ordered_heads(summary):
            chosen = np.flatnonzero((columns["method"] == method) & (columns["head"] == head))
            if not len(chosen) or method in BASELINE_METHODS:
                continue
            of_head = cases.setdefault(method_title(method), {}).setdefault(head_title(head), {})
            for metric in METRICS:
                values = columns[metric.key][chosen]
                at = chosen[np.isfinite(values)]
                goodness = columns[metric.key][at] * (-1 if metric.lower_is_better else 1)
                gain = columns["o"][at] - columns["p"][at]
                ends = {"best": np.lexsort((-gain, -goodness)), "worst": np.lexsort((gain, goodness))}
                entry: dict[str, Any] = {"ties": {}}
                for end, order in ends.items():
                    entry[end] = []
                    for row in at[order[:CASES]]:
                        index, label, predicted = (int(columns[name][row]) for name in ("index", "label", "prediction"))
                        key = anchor(index, label)
                        truth = class_name(summary["class_names"], label)
                        images[key] = [str(columns["name"][row]), truth, key in shown]
                        classes[predicted] = class_name(summary["class_names"], predicted)
                        numbers = [round(float(columns[name][row]), 4) for name in (metric.key, "p", "o")]
                        entry[end].append([key, *numbers, predicted])
                    entry["ties"][end] = int((goodness == goodness[order[0]]).sum()) if len(order) else 0
                of_head[metric.key] = entry
    return {"images": images, "classes": classes, "cases": cases}
