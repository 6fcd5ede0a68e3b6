"""Lists of names that options give: between commas, and in a file of class names."""

from pathlib import Path


def names(text: str) -> tuple[str, ...]:
    """The names between commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def read_class_names(path: str | None, num_classes: int | None = None) -> tuple[str, ...]:
    """The lines of a file, or nothing where there is no path; blank lines at its end are none.

    Raises:
        ValueError: if there is no such file of text in UTF-8, a line is blank, or it has not one name per class.
    """
    if path is None:
        return ()
    if not Path(path).is_file():
        raise ValueError(f"There is no file {path} with the names of the classes.")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8, so that its names cannot be read: save it in that encoding.") from error
    found = tuple(line.strip() for line in text.rstrip().split("\n"))
    if found == ("",):
        raise ValueError(f"{path} has no names: one per line, in the order of the classes.")
    if "" in found:
        raise ValueError(f"Line {found.index('') + 1} of {path} is blank: give a name for every class.")
    if num_classes is not None and len(found) != num_classes:
        raise ValueError(f"{path} has {len(found)} names, and the model {num_classes} classes: one name per line.")
    return found
