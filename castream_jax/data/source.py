"""What the loaders read: a source is a sequence of records with names for its classes and its records.

`grain` reads it from several threads, or worker processes, at once: `__getitem__` changes no state, and a source can
be pickled.
"""

from typing import Any, NotRequired, Protocol, TypedDict, runtime_checkable

from jaxtyping import Bool, Float32, Int32, UInt8
import numpy as np


class Record(TypedDict):
    """One labelled image, on the host.

    A source that has boxes gives all records equally many rows of them, padded with zeros; whatever a transform does
    to a row, one without area (x1 <= x0 or y1 <= y0) stands for no box.
    """

    pixels: UInt8[np.ndarray, "_h _w 3"]  # RGB, 0 to 255
    label: np.int32
    index: int  # position in the source
    box: NotRequired[Float32[np.ndarray, "*_n 4"]]  # x0, y0, x1, y1 in pixels; x1 and y1 lie outside the object
    target: NotRequired[Float32[np.ndarray, " _k"]]  # multi-label data: 1 for each class that is there, else 0
    target_mask: NotRequired[Bool[np.ndarray, " _k"]]  # and False for classes that are neither there nor absent
    size: NotRequired[Int32[np.ndarray, "2"]]  # height and width of the original, for crops on the device,
    placed: NotRequired[Int32[np.ndarray, "2"]]  # and of what it is in the upper left of the pixels


@runtime_checkable
class Source(Protocol):
    """What the loaders need to know of a dataset."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of class `k` at position `k`."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...

    def name(self, index: int) -> str:
        """Stable, readable name of a record: a relative path, or an identifier."""
        ...


def open_record(source: Source, index: int) -> Any:
    """Record `index`; from a source of files, which has `open`, with "pixels" an `EncodedImage`, not decoded yet."""
    return getattr(source, "open", source.__getitem__)(index)


def stored_labels(source: Source) -> Int32[np.ndarray, " images"] | None:
    """The label of every record where the source knows them (as `labels`); None where records must be read."""
    labels = getattr(source, "labels", None)
    return None if labels is None or np.shape(labels) != (len(source),) else np.asarray(labels, np.int32)


def has_several_labels(source: Source) -> bool:
    """Whether records have a `target` beside their `label`."""
    return "target" in open_record(source, 0)
