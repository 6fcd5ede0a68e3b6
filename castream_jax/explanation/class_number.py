"""The class that somebody asks for, by its number or by its name."""

from collections.abc import Sequence
import difflib
import operator
import re
from typing import Any
import unicodedata
import warnings


def class_number(label: Any, class_names: Sequence[str], num_classes: int) -> int:
    """The class of a number (an integer of any type) or of a text: a class's name, in any case, or else a number.

    Where classes are called by numbers that are not their own, as in folders `1` … `12`, a warning says which class
    was taken.

    Raises:
        ValueError: if there is no such class, with the nearest names; if several have that name; or if it is neither
            a whole number nor a text.
    """
    if not isinstance(label, str):
        number = _whole(label)
        _check_number(number, num_classes)
    else:
        named = _called(label, class_names)
        if len(named) > 1:
            numbers = ", ".join(map(str, named))
            raise ValueError(f"Several classes are called {label!r}: give one of the numbers {numbers}.")
        if not named and re.fullmatch(r"[+-]?\d+", label) is None:
            raise ValueError(_unknown(label, class_names))
        number = named[0] if named else int(label)
        _check_number(number, num_classes)
    _warn_of_numbers_as_names(label, number, class_names)
    return number


def _whole(label: Any) -> int:
    try:
        if isinstance(label, bool):
            raise TypeError
        return operator.index(label)
    except TypeError:
        raise ValueError(f"A class is asked for by its number or its name, got {label!r}.") from None


def _check_number(number: int, num_classes: int) -> None:
    if not 0 <= number < num_classes:
        raise ValueError(f"There is no class {number}: the model's classes are 0 … {num_classes - 1}.")


def _called(label: str, class_names: Sequence[str]) -> list[int]:
    """The classes of that name, in any case: of `Cardigan`, a dog, and `cardigan`, both."""
    wanted = _folded(label)
    return [number for number, name in enumerate(class_names) if _folded(name) == wanted]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _unknown(label: str, class_names: Sequence[str]) -> str:
    if not class_names:
        return f"The names of the model's classes are not known: give a number instead of {label!r}."
    lower = [name.lower() for name in class_names]
    near = difflib.get_close_matches(label.lower(), lower, n=3)
    parts = [name for name in lower if label.lower() in name][:3]
    suggestions = [class_names[lower.index(name)] for name in dict.fromkeys([*parts, *near])][:3]
    hint = f"did you mean {' or '.join(map(repr, suggestions))}?" if suggestions else "give a number."
    return f"There is no class called {label!r}: {hint}"


def _warn_of_numbers_as_names(label: Any, number: int, class_names: Sequence[str]) -> None:
    """Says which class was taken where a number could have meant another: as a name, or as a number."""
    name = class_names[number] if number < len(class_names) else ""
    asked = str(label if isinstance(label, str) else number)
    if not _is_number(asked) or name in ("", str(number)) or not any(map(_is_number, class_names)):
        return
    if isinstance(label, str) and asked == name:
        other = class_names[int(asked)] if 0 <= int(asked) < len(class_names) else ""
        rest = f"; the class with the number {int(asked)} is called {other!r}" if other else ""
        said = f"{asked!r} is taken for a name: the class called {name!r} has the number {number}{rest}."
    else:
        rest = f"; the class called {asked!r} is asked for by its name, as text" if asked in class_names else ""
        said = f"{asked} is taken for a number: class {number} is called {name!r}{rest}."
    warnings.warn(said, stacklevel=4)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()
