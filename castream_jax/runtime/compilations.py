"""Which programs XLA compiles: what a start costs on an accelerator, and is the same number on every machine."""

from collections.abc import Iterator
import contextlib
import functools

import jax

_EVENT = "/jax/core/compile/backend_compile_duration"

_lists: list[list[str]] = []


@contextlib.contextmanager
def counted() -> Iterator[list[str]]:
    """The names of the programs that are compiled, or read from a cache, until the context ends, one by one."""
    _listen()
    names: list[str] = []
    _lists.append(names)
    try:
        yield names
    finally:
        _lists[:] = [other for other in _lists if other is not names]


@functools.cache
def _listen() -> None:
    """Once per process: JAX has no public way to take a listener away."""
    jax.monitoring.register_event_duration_secs_listener(_note)


def _note(event: str, duration_secs: float, **kwargs: str | int) -> None:
    if event == _EVENT:
        for names in _lists:
            names.append(str(kwargs.get("fun_name", "")))
