"""A comparison with the paper as Markdown, HTML, LaTeX and CSV."""

import csv
import io
from pathlib import Path

from castream_jax.reporting.templates import html_environment
from castream_jax.reproduce.paper_comparison import PaperComparison
from castream_jax.reproduce.table_layout import (
    MARK,
    PrintedCell,
    TablePart,
    caption,
    provenances,
    table_parts,
    versions,
)
from castream_jax.runtime.atomic_files import write_atomically

CSV_FIELDS: tuple[str, ...] = (
    "table", "dataset", "network", "method", "head", "label", "quantity", "paper", "ours", "difference", "low", "high",
    "outside", "comparable", "config", "images", "protocol", "protocol_hash", "trunk_fingerprint", "run", "versions",
)  # fmt: skip

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "–": "--", "×": r"$\times$",
    "→": r"$\rightarrow$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "·": r"$\cdot$", MARK: r"$^\ddagger$",
}  # fmt: skip


def write_table(comparison: PaperComparison, folder: Path) -> list[Path]:
    """Writes `<table>.md`, `.html`, `.tex` and `.csv` into `folder`, which is made; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix, render in (("md", markdown), ("html", html), ("tex", latex), ("csv", to_csv)):
        paths.append(folder / f"{comparison.table}.{suffix}")
        write_atomically(paths[-1], render(comparison))
    return paths


def markdown(comparison: PaperComparison) -> str:
    """GitHub Markdown; numbers whose published value lies outside the interval are bold and marked."""
    lines = [f"## {comparison.table}", "", _plain(caption(comparison)), ""]
    for part in table_parts(comparison):
        lines += [f"### {part.title}", "", _markdown_row((*part.name_headers, "", *part.headers))]
        lines.append("|" + "---|" * (len(part.name_headers) + 1) + "---:|" * len(part.headers))
        for names, which, cells in _flat(part):
            texts = (f"**{cell.text}** {MARK}" if cell.outside else cell.text for cell in cells)
            lines.append(_markdown_row((*names, which, *texts)))
        lines.append("")
    for fields in provenances(comparison):
        lines += [f"- {key}: {_plain(value)}" if key == "Experiment" else f"  - {key}: {_plain(value)}"
                  for key, value in fields.items()]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def html(comparison: PaperComparison) -> str:
    """One page that needs no other file."""
    environment = html_environment("castream_jax.reproduce")
    return environment.get_template("table.html.j2").render(
        table=comparison.table,
        caption=caption(comparison),
        parts=list(table_parts(comparison)),
        provenances=provenances(comparison),
        mark=MARK,
    )


def latex(comparison: PaperComparison) -> str:
    """A `table` of `booktabs` tabulars; needs `\\usepackage{booktabs}`."""
    lines = [r"\begin{table}", r"\centering\small"]
    for part in table_parts(comparison):
        columns = "l" * (len(part.name_headers) + 1) + "r" * len(part.headers)
        header = " & ".join(_latex(text) for text in (*part.name_headers, "", *part.headers))
        lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", header + r" \\"]
        for names, which, cells in _flat(part):
            if which == "paper":
                lines.append(r"\midrule")
            texts = (_latex(cell.text + (MARK if cell.outside else "")) for cell in cells)
            lines.append(" & ".join([*map(_latex, names), _latex(which), *texts]) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}", r"\par\medskip"]
    lines += [rf"\caption{{{_latex(caption(comparison))}", *_latex_provenance(comparison), "}"]
    return "\n".join([*lines, rf"\label{{tab:{comparison.table}}}", r"\end{table}", ""])


def to_csv(comparison: PaperComparison) -> str:
    """One line per number, with all that it depends on; empty where there is none."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_FIELDS, lineterminator="\n", restval="")
    writer.writeheader()
    for row, values in comparison.lines:
        result = comparison.results.get((row.dataset, row.network))
        source = {}
        if result is not None:
            source = {
                "comparable": result.comparable,
                "config": result.config,
                "images": result.summary["images" if row.method else "accuracy_images"],
                "protocol": result.summary["protocol"]["name"],
                "protocol_hash": result.summary["protocol"]["hash"],
                "trunk_fingerprint": result.summary["trunk_fingerprint"],
                "run": result.summary.get("run", ""),
                "versions": versions(result),
            }
        names = {key: getattr(row, key) for key in ("table", "dataset", "network", "method", "head", "label")}
        for quantity, value in values.items():
            low, high = value.interval or (None, None)
            numbers = {"ours": value.ours, "difference": value.difference, "low": low, "high": high}
            numbers |= {"quantity": quantity, "paper": value.paper, "outside": value.outside}
            fields = names | source | numbers
            writer.writerow({key: "" if value is None else value for key, value in fields.items()})
    return text.getvalue()


def _flat(part: TablePart) -> list[tuple[tuple[str, ...], str, tuple[PrintedCell, ...]]]:
    """The lines of a part; names stand on the first of each row."""
    return [
        (row.names if i == 0 else ("",) * len(row.names), which, cells)
        for row in part.rows
        for i, (which, cells) in enumerate(row.lines)
    ]


def _markdown_row(texts: tuple[str, ...]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def _plain(text: str) -> str:
    """Names are the user's: what Markdown would read as markup is escaped."""
    return "".join(f"\\{character}" if character in "\\`*<[]" else character for character in text)


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _latex_provenance(comparison: PaperComparison) -> list[str]:
    return [
        _latex("; ".join(value if key == "Experiment" else f"{key}: {value}" for key, value in fields.items()) + ".")
        for fields in provenances(comparison)
    ]
