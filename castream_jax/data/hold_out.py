"""Images held out of the training split: to test on, for data without a test split, or to validate on."""

import hashlib
from typing import Any, Literal

from jaxtyping import Int
import numpy as np

from castream_jax.data.source import Record, Source, stored_labels
from castream_jax.data.subset import Subset

Field = Literal["test_fraction", "validation_fraction"]


class Part(Subset):
    """A subset that is a source of its own: its records are numbered from 0."""

    def __getitem__(self, index: int) -> Record:
        return {**super().__getitem__(index), "index": index}

    def open(self, index: int) -> dict[str, Any]:
        return super().open(index) | {"index": index}


def hold_out(source: Source, fraction: float, held: bool, *, field: Field, salt: str = "", copies: int = 1) -> Part:
    """One of two disjoint parts of a source, the same ones in every run.

    Of each class the images whose names have the smallest SHA-256 are held out: at least one, and never all. Of images
    with several labels, the first one counts.

    Args:
        source: has `labels`, the class of each record.
        fraction: of each class, to be held out.
        held: which part.
        field: of `config.data` that asks for it.
        salt: goes before the names: another one holds out other images.
        copies: the source shows everything so many times, all of it once before the second time: the copies of what is
            held out are in no part.

    Raises:
        ValueError: the fraction is out of range, nothing is left, or the labels of `source` are not known before its
            records are read.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"config.data.{field} is {fraction}; it must lie between 0 and 1")
    split = field.replace("fraction", "split")
    labels = stored_labels(source)
    if labels is None:
        raise ValueError(
            f"config.data.{field} needs the labels of all images beforehand, which {type(source).__name__} does not "
            f"have; name a split of its own in config.data.{split}"
        )
    if field == "test_fraction" and labels.min() < 0:
        raise ValueError(
            "config.data.test_fraction divides the images of each class, and some of these have several or none"
        )
    chosen = _chosen(source, labels[: len(source) // copies], fraction, salt)
    positions = np.flatnonzero(chosen if held else ~np.tile(chosen, copies))
    if not len(positions):
        raise ValueError(
            f"config.data.{field}={fraction} of {len(source)} images leaves none "
            f"{'to hold out' if held else 'to train on'}; give another fraction, or name a split of its own "
            f"in config.data.{split}"
        )
    return Part(source, positions)


def _chosen(source: Source, labels: Int[np.ndarray, " n"], fraction: float, salt: str) -> Any:
    """Whether each image is held out."""
    chosen = np.zeros(len(labels), bool)
    rank = [
        hashlib.sha256((salt + source.name(position)).encode(errors="surrogateescape")).digest()
        for position in range(len(labels))
    ]
    for label in np.unique(labels):
        positions = sorted(np.flatnonzero(labels == label).tolist(), key=rank.__getitem__)
        count = min(len(positions) - 1, max(1, round(fraction * len(positions))))
        chosen[positions[:count]] = True
    return chosen
