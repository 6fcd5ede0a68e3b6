"""The paired differences of heads and of methods in full: interval and sign test of each quantity."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from castream_jax.drawing.titles import REFERENCE_HEAD, method_title
from castream_jax.reporting.metric_table import (
    columns_of,
    difference_title,
    ordered_heads,
    ordered_methods,
    reference_differences,
)


class DifferenceRow(NamedTuple):
    """One difference as printed: of what, percent, its 95 % interval, the images on either side of 0, their p-value.

    A measure of a whole data set, such as mAP, has no images on a side: a dash.
    """

    title: str
    measure: str
    difference: str
    interval: str
    higher: str
    lower: str
    ties: str
    p: str


def difference_rows(summary: Mapping[str, Any]) -> dict[str, list[DifferenceRow]]:
    """By the method's title, recognition first under an empty one; of a summary without differences nothing.

    Args:
        summary: contents of `evaluation/summary.json`, values as fractions.
    """
    entries = [
        ({**summary["heads"][head]["difference"], "head": head, "method": ""}, REFERENCE_HEAD)
        for head in ordered_heads(summary)
        if "difference" in summary["heads"][head]
    ]
    of_heads = [(entry, REFERENCE_HEAD) for entry in summary.get("differences", ())]
    of_methods = [(entry, entry["reference"]) for entry in reference_differences(summary)]
    for method in ordered_methods(summary):
        entries += [(entry, minus) for entry, minus in of_heads + of_methods if entry["method"] == method]
    rows: dict[str, list[DifferenceRow]] = {}
    for entry, minus in entries:
        for column in columns_of(summary):
            if column.key not in entry:
                continue
            test = entry.get("sign_tests", {}).get(column.key)
            low_high = entry.get("intervals", {}).get(column.key)
            rows.setdefault(method_title(entry["method"]), []).append(
                DifferenceRow(
                    difference_title(entry["head"], minus),
                    column.header,
                    _signed(entry[column.key]),
                    " to ".join(map(_signed, low_high)) if low_high else "–",
                    *_sides(test),
                )
            )
    return rows


def _sides(test: Mapping[str, Any] | None) -> tuple[str, str, str, str]:
    if test is None:
        return "–", "–", "–", "–"
    higher, lower, ties = (f"{test[side]:,}" for side in ("higher", "lower", "ties"))
    return higher, lower, ties, "< 0.001" if test["p"] < 0.001 else f"{test['p']:.3f}"


def _signed(fraction: float) -> str:
    percent = round(100 * fraction, 2)
    return f"{percent:+.2f}".replace("-", "−") if percent else "0.00"
