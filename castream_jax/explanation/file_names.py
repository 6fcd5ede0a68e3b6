"""Names of the files and folders that explanations are kept in."""

import re


def file_name(text: str) -> str:
    """`text` with a dash for what a file's name should not have."""
    return re.sub(r"[^\w.+-]+", "-", text)


def distinct(name: str, taken: set[str]) -> str:
    """`name`, numbered if it is taken already in capitals or small letters; then it is taken."""
    found, number = name, 1
    while found.lower() in taken:
        number += 1
        found = f"{name}-{number}"
    taken.add(found.lower())
    return found
