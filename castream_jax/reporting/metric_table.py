"""The table of one evaluation: a row per attribution method × head, below it its differences to GAP and to a method.

Terminal, Markdown and HTML print the same `table_rows`. The summary holds fractions; tables show percent with
two decimals, as the paper does, and half the width of the 95 % interval.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
import math
from typing import Any, Literal, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from castream_jax.drawing.titles import REFERENCE_HEAD, head_title, method_title

# Maps that look at neither model nor class: set apart, below the methods that they are to be beaten by.
BASELINE_METHODS = ("random", "centre", "ones")


class Column(NamedTuple):
    """One measured quantity: `key` in the summary, and whether smaller numbers are better."""

    key: str
    title: str
    lower_is_better: bool

    @property
    def header(self) -> str:
        return f"{self.title} {'↓' if self.lower_is_better else '↑'}"


METRICS = (
    Column("AD", "AD", lower_is_better=True),
    Column("AG", "AG", lower_is_better=False),
    Column("AI", "AI", lower_is_better=False),
    Column("I", "I", lower_is_better=False),
    Column("D", "D", lower_is_better=True),
)
COLUMNS = (*METRICS, Column("accuracy", "Accuracy", lower_is_better=False))
LOCALISATION = (  # where images have boxes
    Column("PG", "PG", lower_is_better=False),
    Column("EPG", "EPG", lower_is_better=False),
    Column("IoU", "IoU", lower_is_better=False),
)
MAP = Column("mean_average_precision", "mAP", lower_is_better=False)  # where images have several labels
TOP5 = Column("top5_accuracy", "Top-5", lower_is_better=False)  # where there are more than five classes

Mark = Literal["", "best", "better", "worse"]

_ESTABLISHED = "†"


class MetricCell(NamedTuple):
    """What one cell prints: a number and, where it is known, half the width of its interval (`±1.20`).

    `best` marks a value within its method; `better` and `worse` a difference whose interval excludes 0.
    """

    text: str
    mark: Mark = ""
    interval: str = ""


@dataclass(frozen=True)
class MetricRow:
    """Values of one head under one method; `cells` follow `columns_of`.

    Or that minus GAP under the same method (`minus` is `"gap"`), or minus the reference method under the same head.
    """

    method: str
    head: str
    cells: tuple[MetricCell, ...]
    minus: str = ""

    @property
    def is_difference(self) -> bool:
        return bool(self.minus)

    @property
    def title(self) -> str:
        return difference_title(self.head, self.minus) if self.minus else head_title(self.head)

    @property
    def is_baseline(self) -> bool:
        return self.method in BASELINE_METHODS


def ordered_heads(summary: Mapping[str, Any]) -> list[str]:
    """Head names, GAP first, then the streams as the experiment lists them."""
    return sorted(summary["heads"], key=lambda head: head != REFERENCE_HEAD)


def ordered_methods(summary: Mapping[str, Any]) -> list[str]:
    """Attribution methods in the order in which the evaluation lists them, baseline maps last."""
    methods = dict.fromkeys(entry["method"] for entry in summary["metrics"])
    return sorted(methods, key=lambda method: method in BASELINE_METHODS)


def columns_of(summary: Mapping[str, Any]) -> tuple[Column, ...]:
    """What the table's columns measure."""
    if any(MAP.key in entry for entry in summary["heads"].values()):
        return (*METRICS, MAP)
    has_top5 = any(TOP5.key in entry for entry in summary["heads"].values())
    return (*COLUMNS, TOP5) if has_top5 else COLUMNS


def localisation_rows(summary: Mapping[str, Any]) -> list[MetricRow]:
    """`table_rows` of the localisation metrics; none where no image had a box."""
    found, reference = summary.get("localisation"), summary.get("reference_method", "")
    heads = {head: {} for head in summary["heads"]}
    return table_rows({**found, "heads": heads, "reference_method": reference}, LOCALISATION) if found else []


def table_rows(summary: Mapping[str, Any], columns: Sequence[Column] = ()) -> list[MetricRow]:
    """Rows grouped by method: per head its values and, below them, its differences to GAP and to the reference method.

    Args:
        summary: contents of `evaluation/summary.json`, values as fractions. A missing or NaN value prints a dash.
        columns: what is printed; by default `columns_of`.
    """
    columns = columns or columns_of(summary)
    rows: list[MetricRow] = []
    for method in ordered_methods(summary):
        entries = _by_head(summary, "metrics", method)
        differences = _by_head(summary, "differences", method)
        # Rounded as printed, so that numbers which look equal are marked alike.
        percents = {head: {c.key: percent_of(entry.get(c.key)) for c in columns} for head, entry in entries.items()}
        best = {c.key: _best(c, [values[c.key] for values in percents.values()]) for c in columns}
        if method in BASELINE_METHODS:  # whose maps are the same under every head
            best = dict.fromkeys(best)
        for head, values in percents.items():
            cells = [
                value_cell(v, entries[head], key)._replace(mark="best" if v == best[key] else "")
                for key, v in values.items()
            ]
            rows.append(MetricRow(method, head, tuple(cells)))
            if head != REFERENCE_HEAD and REFERENCE_HEAD in percents:
                # Differences of rounded values: subtracting the printed numbers gives the printed difference.
                cells = [
                    difference_cell(c, values[c.key] - percents[REFERENCE_HEAD][c.key], differences.get(head, {}))
                    for c in columns
                ]
                rows.append(MetricRow(method, head, tuple(cells), minus=REFERENCE_HEAD))
            rows += _to_reference_method(summary, method, head, values, columns)
    return rows


def difference_title(head: str, minus: str) -> str:
    """`ca − GAP` of a difference of heads, `ca: − Grad-CAM` of one of methods."""
    if minus == REFERENCE_HEAD:
        return f"{head_title(head)} − {head_title(minus)}"
    return f"{head_title(head)}: − {method_title(minus)}"


def _to_reference_method(
    summary: Mapping[str, Any], method: str, head: str, percents: Mapping[str, float], columns: Sequence[Column]
) -> list[MetricRow]:
    """The row of `head` under `method` minus the same head under the reference method, where there is one.

    What belongs to the head alone, such as its accuracy, is no matter of methods: a dash.
    """
    reference = summary.get("reference_method", "")
    entry = _find(reference_differences(summary), method, head)
    of_reference = _find(summary["metrics"], reference, head)
    if entry is None or of_reference is None:
        return []
    cells = [difference_cell(c, percents[c.key] - percent_of(of_reference.get(c.key)), entry) for c in columns]
    return [MetricRow(method, head, tuple(cells), minus=reference)]


def reference_differences(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The differences to the reference method; the summary has those to the baselines, too."""
    to = summary.get("reference_method", "")
    return [entry for entry in summary.get("method_differences", ()) if entry["reference"] == to]


def _find(entries: Iterable[Mapping[str, Any]], method: str, head: str) -> Mapping[str, Any] | None:
    return next((entry for entry in entries if (entry["method"], entry["head"]) == (method, head)), None)


def percent_of(fraction: float | None) -> float:
    """As printed; NaN where there is none."""
    return math.nan if fraction is None else round(100 * fraction, 2)


def value_cell(percent: float, entry: Mapping[str, Any], key: str) -> MetricCell:
    """A value, with half the width of its interval from the `intervals` of `entry`."""
    return MetricCell(f"{percent:z.2f}" if math.isfinite(percent) else "–", "", _half_width(entry, key))


def difference_cell(column: Column, percent: float, entry: Mapping[str, Any]) -> MetricCell:
    """A signed difference, marked better or worse where its interval in `entry` excludes 0."""
    if not math.isfinite(percent):
        return MetricCell("–")
    percent = round(percent, 2)
    text = f"{'+' if percent > 0 else '−'}{abs(percent):.2f}" if percent else "0.00"
    low, high = entry.get("intervals", {}).get(column.key, (0.0, 0.0))
    mark: Mark = ""
    if low > 0 or high < 0:
        mark = "better" if (high < 0) == column.lower_is_better else "worse"
    return MetricCell(text, mark, _half_width(entry, column.key))


def metric_table(summary: Mapping[str, Any]) -> Table:
    """The table for the terminal: percent, best value of each column within a method in bold with a star.

    Args:
        summary: contents of `evaluation/summary.json`, values as fractions.
    """
    title = "Percent over {:,} images, protocol {} ({})".format(*_provenance(summary))
    caption = f"* best of the method · ± half the 95 % interval · {_ESTABLISHED} interval excludes 0"
    # Methods are headings, not a column: the table then fits a terminal of 80 characters.
    table = Table(title=title, caption=caption, box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("Head")
    for column in columns_of(summary):
        table.add_column(column.header, justify="right", no_wrap=True)
    styles = {"": "", "best": "bold", "better": "green", "worse": "red"}
    previous = ""
    for row in table_rows(summary):
        # Text, not str: a name is the user's and must not be read as rich markup.
        if row.method != previous:
            if previous:
                table.add_section()
            table.add_row(Text(method_title(row.method), style="bold"))
            previous = row.method
        cells = [Text.assemble((_marked(cell), styles[cell.mark]), (f"\n{cell.interval}", "dim")) for cell in row.cells]
        # The head stands above; the long title would be broken over two lines.
        title = row.title if row.minus in ("", REFERENCE_HEAD) else f"− {method_title(row.minus)}"
        table.add_row(Text(f"  {title}", style="italic" if row.is_difference else ""), *cells)
    return table


def markdown_table(summary: Mapping[str, Any]) -> str:
    """The same table in GitHub Markdown, best values in bold, followed by a line of provenance."""
    columns = columns_of(summary)
    lines = [
        "| Method | Head | " + " | ".join(column.header for column in columns) + " |",
        "|---|---|" + "---:|" * len(columns),
    ]
    for row in table_rows(summary):
        texts = []
        for cell in row.cells:
            text = f"**{cell.text}**" if cell.mark == "best" else _marked(cell)
            texts.append(f"{text} {cell.interval}".rstrip())
        names = [name.replace("|", "\\|") for name in (method_title(row.method), row.title)]
        lines.append("| " + " | ".join([*names, *texts]) + " |")
    caption = (
        "Percent over {:,} images, protocol {} ({}); bold: best head of the method; ±: half the 95 % interval; "
        "{}: difference whose interval excludes 0."
    ).format(*_provenance(summary), _ESTABLISHED)
    return "\n".join([*lines, "", caption, ""])


def _provenance(summary: Mapping[str, Any]) -> tuple[int, str, str]:
    return summary["images"], summary["protocol"]["name"], summary["protocol"]["hash"]


def _by_head(summary: Mapping[str, Any], kind: str, method: str) -> dict[str, dict[str, Any]]:
    """{head: entry} of the means (`"metrics"`) or `"differences"` under a method, recognition beside."""
    entries = {entry["head"]: entry for entry in summary.get(kind, ()) if entry["method"] == method}
    joined = {}
    for head in ordered_heads(summary):
        if head in entries:
            recognition = summary["heads"][head] if kind == "metrics" else summary["heads"][head].get("difference", {})
            intervals = {**entries[head].get("intervals", {}), **recognition.get("intervals", {})}
            joined[head] = {**recognition, **entries[head], "intervals": intervals}
    return joined


def _best(column: Column, percents: list[float]) -> float | None:
    """The value to mark, or None where there is nothing to choose between."""
    finite = [value for value in percents if math.isfinite(value)]
    if len(set(finite)) < 2:
        return None
    return min(finite) if column.lower_is_better else max(finite)


def _half_width(entry: Mapping[str, Any], key: str) -> str:
    low, high = entry.get("intervals", {}).get(key, (math.nan, math.nan))
    half = 100 * (high - low) / 2
    return f"±{half:.2f}" if math.isfinite(half) else ""


def _marked(cell: MetricCell) -> str:
    # Signs keep the marks where styles are lost: logs, pipes, terminals without colours.
    signs: dict[Mark, str] = {"best": "*", "better": _ESTABLISHED, "worse": _ESTABLISHED}
    return signs.get(cell.mark, "") + cell.text
