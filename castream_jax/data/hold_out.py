"""Test images from the training split, for data that come without a test split."""

import hashlib
from typing import Any

import numpy as np

from castream_jax.data.source import Record, Source
from castream_jax.data.subset import Subset


class Part(Subset):
    """A subset that is a source of its own: its records are numbered from 0.

    Attributes:
        labels: class of each record.
    """

    def __init__(self, source: Source, indices: np.ndarray, labels: np.ndarray):
        super().__init__(source, indices)
        self.labels = labels[indices]

    def __getitem__(self, index: int) -> Record:
        return {**super().__getitem__(index), "index": index}

    def open(self, index: int) -> dict[str, Any]:
        return super().open(index) | {"index": index}


def hold_out(source: Source, fraction: float, test: bool) -> Part:
    """One of two disjoint parts of a source, the same ones in every run.

    Of each class the images whose names have the smallest SHA-256 are for testing: at least one, and never all.

    Args:
        source: has `labels`, the class of each record.
        fraction: of each class, for testing.
        test: which part.

    Raises:
        ValueError: the fraction is out of range, or the labels of `source` are not known before its records are read.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"data.test_fraction is {fraction}; it must lie between 0 and 1")
    labelled: Any = source
    if not hasattr(source, "labels"):
        raise ValueError(
            f"data.test_fraction needs the labels of all images beforehand, which {type(source).__name__} does not "
            "have; name a split of its own in data.test_split"
        )
    labels = np.asarray(labelled.labels)
    if labels.min() < 0:
        raise ValueError("data.test_fraction divides the images of each class, and some of these have several or none")
    rank = [hashlib.sha256(source.name(position).encode()).digest() for position in range(len(source))]
    chosen = np.zeros(len(source), bool)
    for label in np.unique(labels):
        positions = sorted(np.flatnonzero(labels == label).tolist(), key=rank.__getitem__)
        count = min(len(positions) - 1, max(1, round(fraction * len(positions))))
        chosen[positions[:count]] = True
    return Part(source, np.flatnonzero(chosen == test), labels)
