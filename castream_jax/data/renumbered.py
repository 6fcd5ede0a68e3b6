"""A split with the class numbers of another: classes are matched by their names."""

from collections.abc import Sequence
import difflib
from typing import Any
import unicodedata

from jaxtyping import Int32
import numpy as np

from castream_jax.data.source import Record, Source, has_several_labels, open_record, stored_labels

_NAMED = 3  # of the classes that a message lists
_NUMBERED = 12


class Renumbered:
    """The records of `source`, in its order, with the class numbers of `class_names`."""

    def __init__(self, source: Source, class_names: Sequence[str], numbers: Sequence[int]):
        """Args:
        source: where records come from.
        class_names: names of all classes.
        numbers: for each class of `source` its number among them.
        """
        self._source, self._class_names = source, tuple(class_names)
        self.numbers = np.asarray(numbers, np.int32)
        self.skipped = getattr(source, "skipped", {})

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._class_names

    @property
    def labels(self) -> Int32[np.ndarray, " images"] | None:
        labels = stored_labels(self._source)
        return None if labels is None else np.where(labels < 0, labels, self.numbers[labels]).astype(np.int32)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        return self._renumber(self._source[index])

    def open(self, index: int) -> dict[str, Any]:
        """The record, its image still encoded if `source` can give it so."""
        return self._renumber(open_record(self._source, index))

    def name(self, index: int) -> str:
        return self._source.name(index)

    def _renumber(self, record: Any) -> Any:
        label = int(record["label"])
        changed: dict[str, Any] = {"label": np.int32(label if label < 0 else self.numbers[label])}
        for key in ("target", "target_mask"):  # of a class that the source does not know nothing is said
            if key in record:
                changed[key] = np.zeros(len(self._class_names), record[key].dtype)
                changed[key][self.numbers] = record[key]
        return record | changed


def numbered_as(source: Source, class_names: Sequence[str], split: str) -> Source:
    """`source` with the class numbers of `class_names`: its own classes are found there by name, however they sort.

    Names that Unicode can write in two ways are one name (they are compared in normal form C).

    Args:
        source: of any split.
        class_names: of the training data.
        split: what to call the source in a message.

    Raises:
        ValueError: the source has classes that are not among them; names the first few.
    """
    if tuple(source.class_names) == tuple(class_names):
        return source
    there, here = ([_normal(name) for name in names] for names in (class_names, source.class_names))
    strangers = [name for name in here if name not in there]
    if strangers:
        listed = ", ".join(_suggestion(name, there) for name in strangers[:_NAMED])
        more = f" and {len(strangers) - _NAMED} more" if len(strangers) > _NAMED else ""
        raise ValueError(
            f"{split} has classes that are none of the {len(there)} classes of the training data: {listed}{more}. "
            "The training data numbers the classes, and others are matched by name: rename these, or take them out."
        )
    several = [name for name in dict.fromkeys(here) if there.count(name) > 1]
    if several and here != there:
        raise ValueError(
            f"{split} cannot be matched with the training data by name: there, several classes have "
            f"the name {several[0]!r}. Give classes names of their own."
        )
    numbers = range(len(there)) if here == there else [there.index(name) for name in here]
    return Renumbered(source, class_names, numbers)


def check_class_names(class_names: Sequence[str]) -> None:
    """Raises a ValueError if two classes have names that differ only in how Unicode writes them."""
    first: dict[str, str] = {}
    for name in class_names:
        other = first.setdefault(_normal(name), name)
        if other != name:
            raise ValueError(
                f"Two classes of the training data are called {_normal(name)!r}, which Unicode writes in two ways "
                f"({other!a} and {name!a}): make one of them."
            )


def numbering(class_names: Sequence[str]) -> str:
    """What to say where names are numbers but not those of their classes; empty where they are not."""
    misleading = [
        f"class {number} is {name!r}"
        for number, name in enumerate(class_names)
        if name.isdecimal() and int(name) != number
    ]
    if not misleading:
        return ""
    more = f", … ({len(misleading)} such classes)" if len(misleading) > _NUMBERED else ""
    return f"class numbers are not the names (these sort as text): {', '.join(misleading[:_NUMBERED])}{more}"


def classes_without_images(source: Source) -> list[str]:
    """Names of the classes that no image has, as far as that is known without reading the images."""
    labels = stored_labels(source)
    if labels is None or has_several_labels(source):
        numbers = source.numbers if isinstance(source, Renumbered) else range(len(source.class_names))
    else:
        numbers = labels
    shown = set(np.asarray(numbers).tolist())
    return [name for number, name in enumerate(source.class_names) if number not in shown]


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + more


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _suggestion(name: str, known: Sequence[str]) -> str:
    alike = [other for other in known if other.casefold() == name.casefold()]
    near = alike or difflib.get_close_matches(name, known, n=1)
    return f"{name!r} (did you mean {near[0]!r}?)" if near else repr(name)
