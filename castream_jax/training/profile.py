"""`--profile`: a trace of some training steps."""

from collections.abc import Iterator
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Any

import jax


class StepProfile:
    """Traces the steps `first` … `last` to `folder`, for TensorBoard's profile tab or xprof; a context manager.

    The trace ends with the training where that comes earlier. Only process 0 writes one.
    """

    def __init__(self, folder: Path, *, first: int, last: int, active: bool):
        self._folder, self._first, self._last = folder, first, last
        self._active = active and jax.process_index() == 0
        self._tracing = False

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around step `number`, named in the trace."""
        if self._active and number == self._first:
            jax.profiler.start_trace(str(self._folder))
            self._tracing = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number) if self._tracing else contextlib.nullcontext():
            yield

    def stop_after(self, number: int, result: Any) -> None:
        """Ends the trace, if step `number` is the last one, when the devices have computed its `result`."""
        if self._tracing and number == self._last:
            jax.block_until_ready(result)
            self._stop()

    def _stop(self) -> None:
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()

    def __enter__(self) -> "StepProfile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
