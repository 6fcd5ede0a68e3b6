"""Predictions of many explanations as a table for a terminal."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from castream_jax.drawing.titles import head_title
from castream_jax.explanation.explanation import Explanation

_SHOWN = 3  # predictions of each head


def prediction_rows(explanation: Explanation) -> list[tuple[str, ...]]:
    """One row per head: image, head, its first prediction, the next, the explained class if that is not the first."""
    rows = []
    for head in explanation.probabilities:
        predictions = explanation.predictions(head, _SHOWN)
        explained = explanation.explained(head)
        texts = [f"{p.title} {100 * p.probability:.1f} %" for p in predictions]
        other = "" if explained == predictions[0] else f"{explained.title} {100 * explained.probability:.1f} %"
        rows.append((explanation.name, head_title(head), texts[0], ", ".join(texts[1:]), other))
    return rows


def predictions_table(rows: Sequence[tuple[str, ...]]) -> Table:
    """A table of `prediction_rows`; its last column is left out where each head explains its own prediction.

    Images are called by the names of their files, of which those that several share stand with their folders.
    """
    table = Table(box=SIMPLE_HEAD)
    titles = ["Image", "Head", "Prediction", "Then", "Explained"]
    if not any(row[-1] for row in rows):
        titles.pop()
    for title in titles:
        table.add_column(title, overflow="fold")
    files = Counter(Path(name).name for name in {row[0] for row in rows})
    last = ""
    for row in rows:
        file = Path(row[0]).name
        cells = ["" if row[0] == last else file if files[file] == 1 else row[0], *row[1:]]
        last = row[0]
        table.add_row(*(Text(cell) for cell in cells[: len(titles)]))
    return table
