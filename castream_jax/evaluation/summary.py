"""From the rows of an evaluation to its means, their intervals, and paired differences of heads and of methods."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxtyping import Float, Int
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from castream_jax.evaluation.statistics import bootstrap_means, interval, sign_test
from castream_jax.metrics import METRICS
from castream_jax.metrics.localisation import LOCALISATION

REFERENCE = "gap"  # the head that streams are compared with

_ACCURACIES = {"correct": "accuracy", "correct_top5": "top5_accuracy"}
_CURVES = ("insertion_curve", "deletion_curve")

# What is read of the rows and of the predictions.
ROW_COLUMNS = ("index", "head", "method", *METRICS, *LOCALISATION, *_CURVES)
PREDICTION_COLUMNS = ("index", "head", *_ACCURACIES)

Key = tuple[str, ...]
Entry = dict[str, Any]


def summarise_predictions(predictions: pa.Table) -> dict[str, Entry]:
    """Per head its accuracy (and top-5 accuracy) with intervals and, for a stream, its `difference` to GAP.

    Args:
        predictions: image by image a row per head, the heads in one order: index, head, correct, and correct_top5
            where there are more than five classes.

    Raises:
        ValueError: if the rows are in another order.
    """
    fields = [field for field in _ACCURACIES if field in predictions.column_names]
    predictions = predictions.rename_columns({field: _ACCURACIES[field] for field in fields})
    measured = _measure(predictions, ("head",), [_ACCURACIES[field] for field in fields])
    entries, differences = _means(measured), _differences(measured)
    for key, difference in differences.items():
        entries[key]["difference"] = difference
    return {head: entry for (head,), entry in entries.items()}


class RowsSummary(NamedTuple):
    """Lists of `{"head", "method", metric: value, "intervals": {metric: [low, high]}}`, values as fractions.

    Attributes:
        means: of every head and method.
        differences: of every stream to GAP under the same method; these have `"sign_tests": {metric: {"higher",
            "lower", "ties", "p"}}` too.
        method_differences: of every method to each of the `references` under the same head, likewise, and with
            `"reference"`, the other method.
        curves: a row per head x method x curve with `mean`, `low` and `high` at each step; None where none was kept.
    """

    means: list[Entry]
    differences: list[Entry]
    method_differences: list[Entry]
    curves: pa.Table | None


def summarise_rows(rows: pa.Table, references: Sequence[str] = ()) -> RowsSummary:
    """Means, paired differences and mean curves, all with bootstrap intervals.

    Args:
        rows: image by image a row per head x method, these in one order: index, head, method, the metrics and, where
            they were kept, the curves.
        references: methods that the others are compared with.

    Raises:
        ValueError: if the rows are in another order.
    """
    curves = [name for name in _CURVES if name in rows.column_names]
    measured = _measure(rows, ("head", "method"), [*METRICS, *curves])
    means, differences, method_differences = _means_and_differences(measured, references)
    return RowsSummary(means, differences, method_differences, _mean_curves(measured, curves))


def summarise_localisation(rows: pa.Table, references: Sequence[str] = ()) -> dict[str, Any] | None:
    """Means and paired differences of the localisation metrics, over the images that have a box.

    Args:
        rows, references: see `summarise_rows`.

    Returns:
        `{"images", "metrics", "differences", "method_differences"}`, entries as of `summarise_rows`; None where no
        image has a box.
    """
    if LOCALISATION[0] not in rows.column_names:
        return None
    rows = rows.filter(pc.call_function("is_finite", [rows[LOCALISATION[0]]]))
    if not len(rows):
        return None
    measured = _measure(rows, ("head", "method"), LOCALISATION)
    means, differences, method_differences = _means_and_differences(measured, references)
    found = {"metrics": means, "differences": differences, "method_differences": method_differences}
    return {"images": len(measured.images), **found}


def _means_and_differences(measured: "_Measured", references: Sequence[str]) -> tuple[list[Entry], ...]:
    def listed(entries: Mapping[Key, Entry], **more: str) -> list[Entry]:
        return [{"head": head, "method": method, **more, **entry} for (head, method), entry in entries.items()]

    of_methods = [
        entry
        for reference in references
        for entry in listed(_differences(measured, lambda key, to=reference: (key[0], to)), reference=reference)
    ]
    return listed(_means(measured)), listed(_differences(measured)), of_methods


class _Measured(NamedTuple):
    """Per key (head, or head and method) the columns of some fields side by side, and the bootstrap of their means."""

    keys: list[Key]
    fields: dict[str, slice]
    images: Int[np.ndarray, " rows"]
    values: Float[np.ndarray, "rows keys columns"]
    samples: Float[np.ndarray, "resamples keys columns"]


def _measure(table: pa.Table, by: Sequence[str], fields: Sequence[str]) -> _Measured:
    names = (
        pc.call_function("binary_join_element_wise", [*(table[name] for name in by), "\0"])
        .combine_chunks()
        .dictionary_encode()
    )
    keys = [tuple(name.split("\0")) for name in names.dictionary.to_pylist()]
    if len(names) % len(keys) or np.any(names.indices.to_numpy().reshape(-1, len(keys)) != np.arange(len(keys))[None]):
        raise ValueError("The results are not image by image in one order of heads and methods: evaluate again.")
    columns = [_matrix(table[field]) for field in fields]
    stops = np.cumsum([column.shape[1] for column in columns]).tolist()
    values = np.concatenate(columns, axis=1).reshape(-1, len(keys), stops[-1])
    images = table["index"].to_numpy()[:: len(keys)]
    samples = bootstrap_means(values.reshape(len(values), -1), images)
    slices = map(slice, [0, *stops], stops)
    return _Measured(
        keys, dict(zip(fields, slices, strict=True)), images, values, samples.reshape(-1, *values.shape[1:])
    )


def _matrix(column: pa.ChunkedArray) -> Float[np.ndarray, "rows columns"]:
    """A column of numbers, or of lists of one length."""
    if pa.types.is_fixed_size_list(column.type):
        return column.combine_chunks().flatten().to_numpy().reshape(len(column), -1)
    return column.to_numpy().astype(np.float32)[:, None]


def _means(measured: _Measured) -> dict[Key, Entry]:
    return {key: _entry(measured, measured.values[:, k], measured.samples[:, k]) for k, key in enumerate(measured.keys)}


def _differences(
    measured: _Measured, reference_of: Callable[[Key], Key] = lambda key: (REFERENCE, *key[1:])
) -> dict[Key, Entry]:
    """Of each key that has a reference other than itself, paired image by image; by default GAP, all else equal."""
    entries = {}
    for k, key in enumerate(measured.keys):
        reference = reference_of(key)
        if key == reference or reference not in measured.keys:
            continue
        r = measured.keys.index(reference)
        values = measured.values[:, k] - measured.values[:, r]
        entries[key] = _entry(measured, values, measured.samples[:, k] - measured.samples[:, r])
        entries[key]["sign_tests"] = {
            field: sign_test(values[:, measured.fields[field].start], measured.images)._asdict()
            for field in _scalars(measured)
        }
    return entries


def _entry(
    measured: _Measured,
    values: Float[np.ndarray, "rows columns"],
    samples: Float[np.ndarray, "resamples columns"],
) -> Entry:
    """Mean of every field but the curves, and, unless there is but one image, its interval."""
    at = {field: measured.fields[field].start for field in _scalars(measured)}
    entry: Entry = {field: float(values[:, c].mean(dtype=np.float64)) for field, c in at.items()}
    if np.any(measured.images != measured.images[0]):
        entry["intervals"] = {field: interval(samples[:, c]).tolist() for field, c in at.items()}
    return entry


def _scalars(measured: _Measured) -> list[str]:
    return [field for field in measured.fields if field not in _CURVES]


def _mean_curves(measured: _Measured, curves: Sequence[str]) -> pa.Table | None:
    if not curves:
        return None
    rows = []
    for k, (head, method) in enumerate(measured.keys):
        for curve in curves:
            columns = measured.fields[curve]
            low, high = interval(measured.samples[:, k, columns])
            mean = measured.values[:, k, columns].mean(axis=0, dtype=np.float64)
            rows.append({"head": head, "method": method, "curve": curve.removesuffix("_curve")})
            rows[-1] |= {"mean": mean.tolist(), "low": low.tolist(), "high": high.tolist()}
    return pa.Table.from_pylist(rows)
