"""Data sources by name: those that a path and the name of a split describe."""

from collections.abc import Callable
import difflib
from typing import NamedTuple, TypeVar

from castream_jax.data.source import Source
from castream_jax.plugins import load_plugins

OpenSource = Callable[[str, str], Source]


class RegisteredSource(NamedTuple):
    """An entry of the registry: what opens `(path, split)`, and the splits there are."""

    open: OpenSource
    splits: tuple[str, ...]


SOURCES: dict[str, RegisteredSource] = {}

# Known to `open_source` itself, which gives them more than a path and a split.
_CONFIGURED = ("voc", "digits", "prepared")

_Open = TypeVar("_Open", bound=OpenSource)


def register_source(name: str, *, splits: tuple[str, ...] = ("train", "test")) -> Callable[[_Open], _Open]:
    """Decorator: make `config.data.source = name` read what `open(path, split)` returns, a `Source`.

    `path` is `config.data.path`, `split` that of `train_split` or `test_split`. A class whose constructor takes these
    two will do. What it makes must be picklable where worker processes read it.

    Args:
        name: the new name.
        splits: that `castream data check` looks at.

    Raises:
        ValueError: if the name is taken.
    """

    def register(open_: _Open) -> _Open:
        if name in SOURCES or name in _CONFIGURED:
            raise ValueError(f"There is already a data source {name!r}: choose another name.")
        SOURCES[name] = RegisteredSource(open_, splits)
        return open_

    return register


def check_source(name: str) -> None:
    """Raises a ValueError with the nearest name if there is no such source, among plugins either."""
    if name in SOURCES or name in _CONFIGURED:
        return
    load_plugins("castream_jax.sources")
    if name not in SOURCES:
        known = (*SOURCES, *_CONFIGURED)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'? There are" if near else "choose one of"
        raise ValueError(f"unknown data source '{name}'; {hint} {', '.join(known)}")
