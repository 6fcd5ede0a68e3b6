"""Which values a field may have, in code and in words."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Allowed(NamedTuple):
    """Whether a value is one of these, in code and in words that follow "must be"."""

    includes: Callable[[Any], bool]
    words: str


def at_least(least: float) -> Allowed:
    return Allowed(lambda value: value >= least, f"at least {least}")


def above(bound: float) -> Allowed:
    return Allowed(lambda value: value > bound, f"greater than {bound}")


def within(low: float, high: float) -> Allowed:
    return Allowed(lambda value: low <= value <= high, f"between {low} and {high}")


def below(high: float) -> Allowed:
    return Allowed(lambda value: 0 <= value < high, f"at least 0 and less than {high}")


def one_of(*values: str) -> Allowed:
    return Allowed(lambda value: value in values, " or ".join(map(repr, values)))
