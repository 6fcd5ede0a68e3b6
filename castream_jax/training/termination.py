"""SIGTERM, which schedulers send before they take a machine away: training stops at a step, and saves."""

import signal
import threading
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils


class Termination:
    """Knows whether SIGTERM has come; a context manager that puts the former handler back.

    Of several processes, one may be told before the others: JAX's preemption service, whose handler
    `jax.distributed.initialize` has installed, finds a step that none of them has passed. More than one SIGTERM is the
    same as one: launchers and schedulers may both send it.
    """

    def __init__(self) -> None:
        self._received = False
        self._alone = jax.process_count() == 1 and threading.current_thread() is threading.main_thread()

    def reached(self, step: int) -> bool:
        """Whether to save and stop after `step`; every process must ask after each step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._received

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._received = True

    def __enter__(self) -> "Termination":
        if self._alone:  # only the main thread may handle signals
            self._former = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._alone:
            signal.signal(signal.SIGTERM, self._former)
