"""Progress on stderr, one line a report: reads the same in a terminal, a log file and a Slurm job's output."""

from collections.abc import Callable
import time

import jax
from rich.console import Console
from rich.text import Text

_console = Console(stderr=True, highlight=False, soft_wrap=True)


class Progress:
    """Reports on a task of known length, with the time left at the pace so far."""

    def __init__(self, task: str, *, total: int, unit: str):
        self._task, self._total, self._unit = task, total, unit
        self._start: tuple[float, int] | None = None

    def report(self, done: int, text: str = "") -> None:
        """One line: `done` of the total, `text`, and the time left."""
        now = time.monotonic()
        if self._start is None:  # the first report comes after compilation, which says nothing about the pace
            self._start = (now, done)
        since, at = self._start
        left = f"{_clock((self._total - done) * (now - since) / (done - at))} left" if done > at else "…"
        counts = f"{done:,}/{self._total:,} {self._unit}"
        self.say(" · ".join(part for part in (counts, text, left if done < self._total else "done") if part))

    def every(self, seconds: float) -> Callable[[int], None]:
        """A function of the number done, which reports it once in so many seconds, and at the end."""
        last = time.monotonic()

        def report(done: int) -> None:
            nonlocal last
            if time.monotonic() - last >= seconds or done == self._total:
                last = time.monotonic()
                self.report(done)

        return report

    def say(self, text: str) -> None:
        """One line about the task, from the first of several processes."""
        if jax.process_index() == 0:
            _console.print(Text.assemble((self._task, "bold"), "  ", text))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
