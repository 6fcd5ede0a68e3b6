"""A published table beside our measurements: number by number, paper, ours, difference, interval."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from castream_jax.reproduce.published import TABLES, PublishedRow, published_rows

# Tables whose parameters count the backbone, too.
_WHOLE_NETWORK = ("supp-table5",)

# What the summary calls a quantity, where the paper's name is another.
_KEYS = {"mAP": "mean_average_precision"}


class OurResult(NamedTuple):
    """Our evaluation of one experiment.

    Attributes:
        config: its file and form, such as `"imagenet/resnet50:small"`.
        summary: contents of `evaluation/summary.json`, values as fractions.
        backbone_parameters: of trunk and classifier.
        comparable: whether backbone and data are the paper's.
    """

    config: str
    summary: Mapping[str, Any]
    backbone_parameters: int
    comparable: bool


class PairedValue(NamedTuple):
    """One number, in percent; a count of parameters has no interval, and is to equal the exact one.

    Attributes:
        paper: as printed.
        ours: measured; None if it was not.
        interval: of ours, rounded as printed; None if it is not known.
        difference: ours - paper; None where there is nothing to compare.
        outside: whether the paper's number lies outside our interval; None where that cannot be judged.
    """

    paper: str
    ours: float | None = None
    interval: tuple[float, float] | None = None
    difference: float | None = None
    outside: bool | None = None


class PairedRow(NamedTuple):
    """A published row and its numbers: `{"AD": …, "AG": …, …}`, `"parameters"` among them."""

    row: PublishedRow
    values: dict[str, PairedValue]


@dataclass(frozen=True)
class PaperComparison:
    """One table; `results` are keyed by (dataset, network) and may lack some that are not measured yet."""

    table: str
    lines: tuple[PairedRow, ...]
    results: Mapping[tuple[str, str], OurResult]

    @property
    def title(self) -> str:
        return TABLES[self.table]

    @property
    def comparable(self) -> bool:
        return all(result.comparable for result in self.results.values())

    @property
    def values(self) -> list[PairedValue]:
        return [value for line in self.lines for value in line.values.values()]


def compare(table: str, results: Mapping[tuple[str, str], OurResult]) -> PaperComparison:
    """Every number of a published table beside ours.

    Differences and marks follow from the printed numbers, which have two decimals.

    Args:
        table: key of `TABLES`.
        results: (dataset, network) -> our evaluation, as far as there is one.
    """
    rows = published_rows(table)
    keys = {(row.dataset, row.network) for row in rows}
    lines = tuple(PairedRow(row, _values(row, results.get((row.dataset, row.network)))) for row in rows)
    return PaperComparison(table, lines, {key: result for key, result in results.items() if key in keys})


def _values(row: PublishedRow, result: OurResult | None) -> dict[str, PairedValue]:
    values = {}
    if row.parameters:
        values["parameters"] = _parameters(row, result)
    entry = None if result is None else _entry(row, result.summary)
    for quantity, paper in row.percents.items():
        values[quantity] = _percent(quantity, paper, entry, comparable=result is not None and result.comparable)
    return values


def _entry(row: PublishedRow, summary: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the summary says of the row's head, or of its head and method; None if nothing."""
    if not row.method:
        return summary["heads"].get(row.head)
    entries = (entry for entry in summary["metrics"] if (entry["head"], entry["method"]) == (row.head, row.method))
    return next(entries, None)


def _percent(quantity: str, paper: str, entry: Mapping[str, Any] | None, *, comparable: bool) -> PairedValue:
    if entry is None:
        return PairedValue(paper)
    key = _KEYS.get(quantity, quantity)
    if key not in entry and quantity == "mAP" and not comparable:
        key = "accuracy"  # which data of one label has instead
    if entry.get(key) is None:
        return PairedValue(paper)
    ours = round(100 * entry[key], 2)
    bounds = entry.get("intervals", {}).get(key)
    interval = None if bounds is None else (round(100 * bounds[0], 2), round(100 * bounds[1], 2))
    if not comparable:
        return PairedValue(paper, ours, interval)
    outside = None if interval is None else not interval[0] <= float(paper) <= interval[1]
    return PairedValue(paper, ours, interval, round(ours - float(paper), 2), outside)


def _parameters(row: PublishedRow, result: OurResult | None) -> PairedValue:
    if result is None or row.head not in result.summary["heads"]:
        return PairedValue(row.parameters)
    ours = result.summary["heads"][row.head]["parameters"]
    if row.table in _WHOLE_NETWORK:
        ours += result.backbone_parameters
    if not result.comparable or row.exact_parameters is None:
        return PairedValue(row.parameters, ours)
    return PairedValue(row.parameters, ours, None, ours - row.exact_parameters, ours != row.exact_parameters)
