"""The images on which a head under a method does best and worst, by each metric, over all that were explained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from castream_jax.drawing.titles import head_title, method_title
from castream_jax.experiment.results import read_parts
from castream_jax.reporting.gallery import anchor, class_name
from castream_jax.reporting.metric_table import BASELINE_METHODS, METRICS, ordered_heads

CASES = 10  # at either end

_COLUMNS = ("index", "name", "label", "prediction", "head", "method", "p", "o", *(metric.key for metric in METRICS))


def extreme_cases(rows: Path, summary: Mapping[str, Any], shown: set[str]) -> dict[str, Any] | None:
    """What the page lists when a metric, a head and a method are chosen; None without per-image results.

    Args:
        rows: folder of the per-image results.
        summary: contents of `evaluation/summary.json`.
        shown: anchors of the gallery's cards, which the cases link to.

    Returns:
        `images` `{anchor: [name, class, whether it is shown]}`, `classes` `{number: name}` and `cases`
        `{method: {head: {metric: {"best": [[anchor, value, p, o, predicted], …], "worst": …, "ties": …}}}}`, titles as
        printed, fractions, images of equal value in the order of their gain o - p; `ties` counts the images that share
        the first value at either end.
    """
    table = read_parts(rows, _COLUMNS)
    if table is None or not len(table):
        return None
    columns = {name: table[name].to_numpy() for name in _COLUMNS if name not in ("head", "method")}
    images: dict[str, list[Any]] = {}
    classes: dict[int, str] = {}
    cases: dict[str, Any] = {}
    by_map = rows_by(table, ("method", "head"))
    for method in dict.fromkeys(method for method, _ in by_map if method not in BASELINE_METHODS):
        for head in (head for head in ordered_heads(summary) if (method, head) in by_map):
            chosen = by_map[method, head]
            by_metric = cases.setdefault(method_title(method), {}).setdefault(head_title(head), {})
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
                by_metric[metric.key] = entry
    return {"images": images, "classes": classes, "cases": cases}


def rows_by(table: pa.Table, names: tuple[str, str]) -> dict[tuple[str, str], np.ndarray]:
    """Rows of each pair of texts in two columns, ascending; pairs in the order in which they first appear."""
    first, second = (table[name].combine_chunks().dictionary_encode() for name in names)
    # Whole numbers, because rows are millions and comparing texts takes seconds.
    codes = first.indices.to_numpy().astype(np.int64) * len(second.dictionary) + second.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    found, starts = np.unique(codes[order], return_index=True)
    groups = dict(zip(found.tolist(), np.split(order, starts[1:]), strict=True))
    texts = first.dictionary.to_pylist(), second.dictionary.to_pylist()
    keys = sorted(groups, key=lambda code: groups[code][0])
    return {(texts[0][code // len(texts[1])], texts[1][code % len(texts[1])]): groups[code] for code in keys}
