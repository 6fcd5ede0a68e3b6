"""Some records of a source."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Int32
import numpy as np

from castream_jax.data.source import Record, Source, open_record, stored_labels


class Subset:
    """The records of `source` at `indices`, in that order; each keeps the `index` it has in `source`.

    Attributes:
        skipped: what `source` passed over beside its records.
    """

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray):
        self._source = source
        self._indices = [int(index) for index in indices]
        self.skipped = getattr(source, "skipped", {})

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._source.class_names

    @property
    def labels(self) -> Int32[np.ndarray, " images"] | None:
        labels = stored_labels(self._source)
        return None if labels is None else labels[self._indices]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Record:
        return self._source[self._indices[index]]

    def open(self, index: int) -> dict[str, Any]:
        """The record, its image still encoded if `source` can give it so."""
        return open_record(self._source, self._indices[index])

    def name(self, index: int) -> str:
        return self._source.name(self._indices[index])
