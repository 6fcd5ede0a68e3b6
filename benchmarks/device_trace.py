"""How much of an accelerator's time passes between its programs: the gaps in a trace."""

from collections.abc import Callable, Iterable
from pathlib import Path
import tempfile

import jax
from jax.profiler import ProfileData


def idle_share(run: Callable[[], object], wait: Callable[[], object], times: int = 10) -> float | None:
    """Share of the time from the first to the last operation in which the device does nothing.

    Args:
        run: starts a program, without waiting for it.
        wait: for all that was started.
        times: how often it is started.

    Returns:
        None where the trace has no streams of operations, as on a CPU.
    """
    wait()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(times):
                run()
            wait()
        return gaps(
            (event.start_ns, event.end_ns)
            for file in Path(folder).rglob("*.xplane.pb")
            for plane in ProfileData.from_file(str(file)).planes
            for line in plane.lines
            if plane.name.startswith("/device:") and (line.name or "").startswith("Stream")
            for event in line.events
        )


def gaps(intervals: Iterable[tuple[float, float]]) -> float | None:
    """Share of the span of `intervals` that none of them covers; None where there are none."""
    ordered = sorted(intervals)
    if not ordered:
        return None
    first, reached = ordered[0][0], ordered[0][0]
    idle = 0.0
    for begin, end in ordered:
        idle += max(0.0, begin - reached)
        reached = max(reached, end)
    return idle / (reached - first) if reached > first else None
