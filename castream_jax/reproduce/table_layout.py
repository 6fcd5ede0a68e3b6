"""Captions, columns and the text of every cell of a comparison, for all output formats."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from castream_jax.drawing.titles import method_title
from castream_jax.reporting.metric_table import METRICS
from castream_jax.reproduce.paper_comparison import OurResult, PairedRow, PairedValue, PaperComparison
from castream_jax.reproduce.published import PublishedRow

MARK = "‡"  # beside our number, where the published one lies outside its interval

_HEADERS = {column.key: column.header for column in METRICS} | {
    "accuracy": "Accuracy ↑",
    "mAP": "mAP ↑",
    "parameters": "Parameters",
}
_KINDS = ("paper", "ours", "difference", "interval")


class PrintedCell(NamedTuple):
    """A text, and whether the published number lies outside our interval."""

    text: str
    outside: bool = False


class PrintedRow(NamedTuple):
    """One published row: its names, and the lines below each other: `("paper", cells)`, `("ours", cells)`, …"""

    names: tuple[str, ...]
    lines: tuple[tuple[str, tuple[PrintedCell, ...]], ...]


class TablePart(NamedTuple):
    """Recognition, or interpretability: rows with the same columns."""

    title: str
    name_headers: tuple[str, ...]
    headers: tuple[str, ...]
    rows: tuple[PrintedRow, ...]


def table_parts(comparison: PaperComparison) -> Iterator[TablePart]:
    """The parts of a table, as the paper divides it."""
    for with_method, title in ((False, "Recognition"), (True, "Interpretability")):
        lines = [line for line in comparison.lines if bool(line.row.method) == with_method]
        if not lines:
            continue
        keys = [key for key in _HEADERS if any(key in line.values for line in lines)]
        # Names that all rows share stand in the caption.
        names = [_names(line.row) for line in lines]
        shown = [i for i in range(4) if len({name[i] for name in names}) > 1 or i == 3]
        kinds = _KINDS if comparison.comparable else ("paper", "ours", "interval")
        yield TablePart(
            title,
            tuple(("Dataset", "Network", "Method", "Head")[i] for i in shown),
            tuple(_HEADERS[key] for key in keys),
            tuple(
                PrintedRow(tuple(name[i] for i in shown), tuple((kind, _cells(line, keys, kind)) for kind in kinds))
                for name, line in zip(names, lines, strict=True)
            ),
        )


def caption(comparison: PaperComparison) -> str:
    """What the table shows, how to read it, and what may be compared."""
    names = " · ".join(f"{network}, {dataset}" for dataset, network in _networks(comparison))
    text = f"{comparison.title} ({names}). Percent. "
    if not comparison.results:
        return text + "Nothing has been measured yet."
    if not comparison.comparable:
        ours = ", ".join(result.summary["name"] for result in comparison.results.values())
        return text + (
            f"Ours is measured on other data or another backbone ({ours}), for which no number was published: the "
            "paper's stand beside it for orientation only, and are not compared."
        )
    judged = [value for value in comparison.values if value.outside is not None]
    outside = sum(bool(value.outside) for value in judged)
    missing = sum(value.ours is None for value in comparison.values)
    text += (
        "Interval: of our mean, by bootstrap over images; it does not cover other trainings. "
        f"{MARK}: the published number lies outside our interval ({outside} of {len(judged)}). "
    )
    if any(line.row.parameters for line in comparison.lines):
        text += "Parameters are compared with the exact count that the printed one abbreviates. "
    return text + (f"Not measured: {missing} of {len(comparison.values)}." if missing else "")


def provenance(result: OurResult, dataset: str, network: str) -> dict[str, str]:
    """Where one experiment's numbers come from."""
    summary = result.summary
    protocol = summary["protocol"]
    fields = {
        "Experiment": f"{network}, {dataset}: {summary['name']} ({result.config})",
        "Images": f"{summary['images']:,}; accuracy over {summary['accuracy_images']:,}",
        "Protocol": f"{protocol['name']} ({protocol['hash']})",
        "Backbone fingerprint": summary["trunk_fingerprint"],
        "Run": summary.get("run", ""),
        "Date": summary.get("date", ""),
        "Device": summary.get("device", ""),
        "Software": versions(result),
    }
    return {key: value for key, value in fields.items() if value}


def versions(result: OurResult) -> str:
    """`castream_jax 0.1, jax 0.10.2, …`"""
    return ", ".join(f"{name} {version}" for name, version in result.summary["versions"].items())


def provenances(comparison: PaperComparison) -> list[dict[str, str]]:
    """`provenance` of every experiment of a table."""
    return [provenance(result, *key) for key, result in comparison.results.items()]


def _networks(comparison: PaperComparison) -> list[tuple[str, str]]:
    return list(dict.fromkeys((line.row.dataset, line.row.network) for line in comparison.lines))


def _names(row: PublishedRow) -> tuple[str, str, str, str]:
    return row.dataset, row.network, method_title(row.method), row.label


def _cells(line: PairedRow, keys: Sequence[str], kind: str) -> tuple[PrintedCell, ...]:
    return tuple(_cell(line.values[key], kind) if key in line.values else PrintedCell("") for key in keys)


def _cell(value: PairedValue, kind: str) -> PrintedCell:
    if kind == "paper":
        return PrintedCell(value.paper)
    if kind == "ours":
        return PrintedCell(_number(value.ours), bool(value.outside))
    if kind == "difference":
        return PrintedCell(_number(value.difference, sign=True))
    return PrintedCell("–" if value.interval is None else f"[{value.interval[0]:z.2f}, {value.interval[1]:z.2f}]")


def _number(number: float | None, *, sign: bool = False) -> str:
    if number is None:
        return "–"
    text = f"{abs(number):,}" if isinstance(number, int) else f"{abs(number):.2f}"
    return text if number >= 0 and not sign else f"{'−' if number < 0 else '+' if number > 0 else ''}{text}"
