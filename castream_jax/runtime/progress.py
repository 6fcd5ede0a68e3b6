"""Progress on stderr, one line a report: reads the same in a terminal, a log file and a Slurm job's output."""

from collections.abc import Callable
import itertools
import threading
import time
from typing import Any

import jax
from rich.console import Console
from rich.text import Text

_SECONDS_BETWEEN = 5.0  # of the lines of `pace`
_SECONDS_OF_SILENCE = 10.0  # while programs are compiled

_console = Console(stderr=True, highlight=False, soft_wrap=True)


class Progress:
    """Reports on a task of known length, with the time left at the pace so far."""

    def __init__(self, task: str, *, total: int, unit: str, done: int = 0):
        """Args:
        task: what is being done.
        total: units in all.
        unit: what is counted, in the plural.
        done: units that were done before, at no cost.
        """
        self._task, self._total, self._unit, self._before = task, total, unit, done
        self._start: tuple[float, int] | None = None
        self._last = 0.0

    def report(self, done: int, text: str = "") -> None:
        """One line: `done` of the total, `text`, and the time left."""
        since, at = self._started(done)
        left = f"{_clock((self._total - done) * (time.monotonic() - since) / (done - at))} left" if done > at else "…"
        counts = f"{done:,}/{self._total:,} {self._unit}"
        self.say(" · ".join(part for part in (counts, text, left if done < self._total else "done") if part))

    def pace(self, done: int) -> None:
        """A report with the pace so far, `done` units after the beginning: every few seconds, and the last one."""
        done += self._before
        since, at = self._started(done)
        now = time.monotonic()
        if now - self._last > _SECONDS_BETWEEN or done == self._total:
            self._last = now
            self.report(done, f"{(done - at) / (now - since):,.1f} {self._unit}/s" if done > at else "")

    def first_call(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, whose first call, which compiles programs for seconds or minutes, says so every ten seconds."""
        calls = itertools.count()

        def call(*arguments: Any, **options: Any) -> Any:
            if next(calls) > 0:
                return function(*arguments, **options)
            begin, ended = time.monotonic(), threading.Event()
            teller = threading.Thread(target=self._tell_of_compiling, args=(begin, ended), daemon=True)
            teller.start()
            try:
                return function(*arguments, **options)
            finally:
                ended.set()
                teller.join()

        return call

    def _tell_of_compiling(self, begin: float, ended: threading.Event) -> None:
        while not ended.wait(_SECONDS_OF_SILENCE):
            self.say(f"compiling … {_clock(time.monotonic() - begin)}")

    def _started(self, done: int) -> tuple[float, int]:
        """Time and count of the first report, which comes after compilation: that says nothing about the pace."""
        if self._start is None:
            self._start = (time.monotonic(), done)
        return self._start

    def say(self, text: str) -> None:
        """One line about the task, from the first of several processes."""
        if jax.process_index() == 0:
            _console.print(Text.assemble((self._task, "bold"), "  ", text))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
