"""What else ran while something was timed."""

import multiprocessing
import os
from pathlib import Path
import time


class Clock:
    """Started when made; tells what share of all cores' time other programs have taken since.

    It matters more to some than to others: PyTorch's threads wait for each other in every layer, and a busy core can
    make it a hundred times slower where JAX loses a third.
    """

    def __init__(self):
        self._began = _now()

    def others(self) -> float | None:
        """0 on an idle machine; None where the system does not say (it has no `/proc/stat`)."""
        began, now = self._began, _now()
        if began is None or now is None:
            return None
        wall, own, busy = (after - before for before, after in zip(began, now, strict=True))
        return max(0.0, (busy - own) / (wall * (os.cpu_count() or 1)))


def _now() -> tuple[float, float, float] | None:
    """Seconds: of the wall clock, of this process and its children on all cores, of all processes on all cores."""
    path = Path("/proc/stat")
    if not path.exists():
        return None
    user, nice, system, _idle, _waiting, *interrupts = map(int, path.read_text().split("\n", 1)[0].split()[1:9])
    busy = user + nice + system + sum(interrupts)
    own = 0
    for process in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        own += int(fields[11]) + int(fields[12])  # user and system, see proc(5)
    ticks = os.sysconf("SC_CLK_TCK")
    return time.perf_counter(), own / ticks, busy / ticks
