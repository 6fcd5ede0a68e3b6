"""Statistics over `evaluation/rows.parquet`: one row per image × head × method."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from castream_jax.reporting.tables import BASELINE, METRICS, ordered_heads, ordered_methods

# Two-sided 95 % of the normal distribution: evaluations have hundreds of images or more.
Z95 = 1.96


def read_rows(path: Path) -> pa.Table:
    """All rows, sorted by image so that two heads' selections line up."""
    return pq.read_table(path).sort_by([("index", "ascending"), ("label", "ascending")])


def select(rows: pa.Table, head: str, method: str) -> pa.Table:
    """The rows of one head under one method, one per image."""
    expression = (pc.field("head") == head) & (pc.field("method") == method)
    return rows.filter(expression)


def mean_curve(rows: pa.Table, column: str) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]] | None:
    """Mean over images of an insertion or deletion curve, and the half-width of its pointwise 95 % band.

    Args:
        rows: the rows of one head and method, see `select`.
        column: `insertion_curve` or `deletion_curve`, class probabilities at equal steps of the pixel share.

    Returns:
        Mean and half-width, or None where no row carries the curve.
    """
    curves = rows[column].drop_null()
    if len(curves) == 0:
        return None
    values = np.asarray(curves.combine_chunks().flatten(), dtype=np.float64).reshape(len(curves), -1)
    return values.mean(axis=0), _half_width(values)


def difference_half_widths(rows: pa.Table, summary: Mapping[str, Any]) -> dict[tuple[str, str, str], float]:
    """95 % half-width of each paired difference stream − GAP, as a fraction.

    Paired, since every head sees the same images: differences vary far less than values.

    Returns:
        {(method, head, metric): half-width}; pairs whose images differ are left out.
    """
    half_widths = {}
    for method in ordered_methods(summary):
        baseline = select(rows, BASELINE, method)
        for head in ordered_heads(summary):
            stream = select(rows, head, method)
            if head == BASELINE or len(stream) < 2 or not _same_images(stream, baseline):
                continue
            for metric in METRICS:
                difference = _column(stream, metric.key) - _column(baseline, metric.key)
                half_widths[method, head, metric.key] = float(_half_width(difference))
    return half_widths


def _same_images(a: pa.Table, b: pa.Table) -> bool:
    return a["index"].equals(b["index"]) and a["label"].equals(b["label"])


def _column(rows: pa.Table, key: str) -> Float[np.ndarray, " images"]:
    return np.asarray(rows[key], dtype=np.float64)


def _half_width(values: Float[np.ndarray, " images *points"]) -> Float[np.ndarray, " *points"]:
    if len(values) < 2:  # one image has a mean but no spread
        return np.zeros(values.shape[1:])
    return Z95 * values.std(axis=0, ddof=1) / np.sqrt(len(values))
