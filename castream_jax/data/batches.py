"""Batches of a grain dataset, from threads or worker processes, with a position that can be saved."""

import ast
from collections.abc import Callable, Sequence
import multiprocessing
from pathlib import Path
import sys
from typing import Any

from absl import flags
import grain
from grain.multiprocessing import SharedMemoryArray
import numpy as np

Batch = dict[str, np.ndarray]

_UNGUARDED = (
    "worker processes begin by running this script again, up to its main guard: put what it does under `if __name__ == "
    '"__main__":`, or read with threads, num_workers=0'
)
_UNGUARDED_STATUS = 78  # of a worker that ran the script as far as the start of workers


class Batches(grain.IterDataset[Batch]):
    """An iterable over the batches of `dataset`, built ahead by threads or by worker processes."""

    def __init__(
        self,
        dataset: grain.MapDataset[Batch],
        name: Callable[[int], str],
        num_threads: int,
        num_workers: int,
        prefetch: int,
    ):
        """Args:
        dataset: batches; each may hold "unreadable", positions of images that could not be decoded.
        name: the name of the image at a position.
        num_threads: threads that build batches, in each worker if there are any; 0 for the caller's own.
        num_workers: processes that build batches; 0 for none.
        prefetch: batches held ready.

        Raises:
            ValueError: a number is negative.
            RuntimeError: there are workers, and the script that is being run has no main guard.
        """
        super().__init__()
        for what, number in (("num_threads", num_threads), ("num_workers", num_workers)):
            if number < 0:
                raise ValueError(f"{what} is {number}; it cannot be negative")
        if num_workers:
            _check_main_guard()
        self.name, self.num_workers = name, num_workers
        self._dataset, self._num_threads, self._prefetch = dataset, num_threads, prefetch

    def __iter__(self) -> "BatchIterator":
        return BatchIterator(self)

    def __len__(self) -> int:
        return len(self._dataset)

    def start_at(self, position: int) -> grain.DatasetIterator[Batch]:
        """Starts the threads or workers that build the batches from `position` on."""
        # A buffer smaller than the number of threads leaves some idle.
        buffer = max(self._prefetch, self._num_threads)
        rest = self._dataset[position:] if position else self._dataset
        batches = rest.to_iter_dataset(grain.ReadOptions(self._num_threads, buffer))
        if not self.num_workers or position >= len(self):
            return iter(batches)
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # grain hands absl's flags on to its workers, and absl insists on this
        per_worker = max(1, self._prefetch // self.num_workers)
        return iter(batches.mp_prefetch(grain.MultiprocessingOptions(self.num_workers, per_worker)))


class BatchIterator(grain.DatasetIterator[Batch]):
    """Iterator whose state is the number of batches handed out.

    grain's own state depends on the number of worker processes: saved with one number and restored with another, it
    silently continues with other data. Counting batches does not, because neither threads nor workers change their
    order. The number of workers is kept in the state all the same, so that a checkpoint tells how it was made.

    Attributes:
        unreadable: names of the images that could not be decoded and were skipped, each once.
    """

    def __init__(self, batches: Batches):
        super().__init__()
        self._batches, self._position = batches, 0
        self._inner: grain.DatasetIterator[Batch] | None = None
        self._unreadable: dict[int, str] = {}

    @property
    def unreadable(self) -> tuple[str, ...]:
        return tuple(self._unreadable.values())

    def __next__(self) -> Batch:
        if self._inner is None:
            self._inner = self._batches.start_at(self._position)
        try:
            batch = next(self._inner)
        except RuntimeError as error:
            if f"exit code {_UNGUARDED_STATUS}." not in str(error):
                raise
            raise RuntimeError(_UNGUARDED) from None
        if self._batches.num_workers:
            batch = {key: _own(array) for key, array in batch.items()}
        self._position += 1
        self._note(batch.pop("unreadable", np.array([], np.int32)).tolist())
        return batch

    def get_state(self) -> dict[str, Any]:
        return {
            "next_batch": self._position,
            "num_workers": self._batches.num_workers,
            "unreadable": sorted(self._unreadable),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues behind the batches that `state` counts.

        Raises:
            ValueError: the state is not one of these.
        """
        if "next_batch" not in state:
            raise ValueError(f"the saved position of the data is of another version of this library: {state}")
        if not 0 <= state["next_batch"] <= len(self._batches):
            raise ValueError(
                f"the saved position of the data is batch {state['next_batch']}, and there are {len(self._batches)}: "
                "the data or the batch size is not what it was"
            )
        self.close_workers()
        self._position, self._unreadable = state["next_batch"], {}
        self._note(state["unreadable"])

    def close(self) -> None:
        self.close_workers()
        super().close()

    def close_workers(self) -> None:
        """Stops the threads and processes; the next batch starts new ones."""
        if self._inner is not None:
            self._inner.close()
            self._inner = None

    def _note(self, positions: list[int]) -> None:
        for position in positions:
            self._unreadable.setdefault(position, self._batches.name(position))


def _own(array: np.ndarray) -> np.ndarray:
    """The array in this process's own memory.

    grain gives back the shared memory of a batch when the batch goes, in a thread: too late for one that is alive when
    Python ends.
    """
    if not isinstance(array, SharedMemoryArray):
        return array
    own = np.array(array)
    shared: Any = array
    shared._unlink_on_del = False
    shared.shm.unlink()
    return own


def _check_main_guard() -> None:
    """Refuses to start worker processes from a script that would start them again in each of them.

    Raises:
        RuntimeError: what is being run is a script without `if __name__ == "__main__":`.
        SystemExit: this is a worker that is running such a script.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # a worker that has not begun its work yet
        sys.exit(_UNGUARDED_STATUS)
    main = sys.modules["__main__"]
    if getattr(main, "__spec__", None) is not None:  # python -m …
        return
    try:
        tree = ast.parse(Path(getattr(main, "__file__", "")).read_bytes())
    except (OSError, ValueError, SyntaxError):  # a notebook, an interactive session
        return
    tests = [node.test for node in ast.walk(tree) if isinstance(node, ast.If)]
    if not any(isinstance(node, ast.Name) and node.id == "__name__" for test in tests for node in ast.walk(test)):
        raise RuntimeError(_UNGUARDED)


def describe_unreadable(names: Sequence[str]) -> str:
    """One line for logs: how many images could not be read, and the first three of them."""
    first = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    images = "image was" if len(names) == 1 else "images were"
    return f"{len(names)} unreadable {images} skipped: {first}"
