"""Which classes are recognised and which are taken for which: from the predictions of every image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Int
import numpy as np

from castream_jax.drawing.titles import head_title
from castream_jax.experiment.results import read_parts
from castream_jax.reporting.gallery import class_name
from castream_jax.reporting.metric_table import ordered_heads

MATRIX_UP_TO = 20  # classes; of more, only the most frequent confusions are printed
WORST, CONFUSIONS = 20, 10


class ClassRow(NamedTuple):
    """A class, its images, and the percentage of them that each head recognises."""

    name: str
    images: int
    accuracies: list[str]


class Confusion(NamedTuple):
    """So many images of a class were taken for another."""

    truth: str
    predicted: str
    images: int


@dataclass(frozen=True)
class RecognitionTables:
    """What the page prints; by head as printed.

    Attributes:
        heads: as printed.
        classes: the worst first, by the mean over heads; at most `WORST` of more than `MATRIX_UP_TO`.
        num_classes: classes that have images.
        names: of the matrices' rows and columns; empty where there are too many classes.
        matrices: images of each true class (row) by predicted class (column).
        confusions: the most frequent ones, where there is no matrix.
    """

    heads: list[str]
    classes: list[ClassRow]
    num_classes: int
    names: list[str]
    matrices: dict[str, list[list[int]]]
    confusions: dict[str, list[Confusion]]


def recognition_tables(predictions: Path, summary: Mapping[str, Any]) -> RecognitionTables | None:
    """None without predictions, or where images have several labels: then a prediction is no confusion.

    Args:
        predictions: folder of the per-image predictions.
        summary: contents of `evaluation/summary.json`.
    """
    table = read_parts(predictions, ("index", "label", "head", "prediction"))
    if table is None or not len(table):
        return None
    columns = {name: table[name].to_numpy() for name in table.column_names}
    heads, names = ordered_heads(summary), summary["class_names"]
    first = columns["head"] == heads[0]
    if len(np.unique(columns["index"][first])) < first.sum():
        return None
    found = np.unique(columns["label"])
    count = 1 + int(max(columns["label"].max(), columns["prediction"].max()))
    counts = {
        head: _counts(columns["label"][columns["head"] == head], columns["prediction"][columns["head"] == head], count)
        for head in heads
    }
    small = count <= MATRIX_UP_TO
    return RecognitionTables(
        heads=[head_title(head) for head in heads],
        classes=_classes(counts, found, names)[: None if small else WORST],
        num_classes=len(found),
        names=[class_name(names, number) for number in range(count)] if small else [],
        matrices={head_title(head): of_head.tolist() for head, of_head in counts.items()} if small else {},
        confusions={} if small else {head_title(head): _confusions(of_head, names) for head, of_head in counts.items()},
    )


def _counts(
    labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], classes: int
) -> Int[np.ndarray, "{classes} {classes}"]:
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def _classes(counts: Mapping[str, np.ndarray], found: np.ndarray, names: Sequence[str]) -> list[ClassRow]:
    images = next(iter(counts.values())).sum(axis=1)[found]
    shares = np.stack([of_head[found, found] / images for of_head in counts.values()], axis=1)
    return [
        ClassRow(class_name(names, int(found[i])), int(images[i]), [f"{100 * share:.1f}" for share in shares[i]])
        for i in np.lexsort((found, shares.mean(axis=1)))
    ]


def _confusions(counts: np.ndarray, names: Sequence[str]) -> list[Confusion]:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    places = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        Confusion(class_name(names, int(t)), class_name(names, int(p)), int(wrong[t, p]))
        for t, p in places
        if wrong[t, p]
    ]
