"""What the command line says of a mistake, or warns of: one sentence, in the words of its options."""

from collections.abc import Iterator
import contextlib
import errno
import os
import re
import select
import sys
from typing import Any
import warnings

# What the system answers -> what was wrong, and what to do. {} is the path.
_SYSTEM = {
    errno.ENOENT: "There is no {}: check the path.",
    errno.ENOTDIR: "{} cannot be reached: something on the way is a file, not a folder.",
    errno.EEXIST: "{} is there already, and is a file: give another path.",
    errno.EISDIR: "{} is a folder, and a file is wanted: give another path.",
    errno.EACCES: "{} may not be read or written by this user: change its permissions, or give another path.",
    errno.EPERM: "{} may not be read or written by this user: change its permissions, or give another path.",
    errno.EROFS: "{} lies where nothing can be written: give another path.",
    errno.ENOSPC: "There is no room on the disk for {}: make some, and run the same command again.",
    errno.ENAMETOOLONG: "{} is too long a name: give a shorter one.",
    errno.ELOOP: "{} is a link that leads back to itself: give another path.",
    errno.EMFILE: "Too many files are open at once ({}): raise the limit with ulimit -n.",
}

_OF_NO_PATH = (errno.ENOSPC, errno.EMFILE)  # what these say is enough where the system names none

_FIELD = re.compile(r"(?<![\w./-])config\.(?=(name|seed|imports|data|backbone|streams|optimizer|train|evaluation)\b)")


def sentence(error: Exception, *, sets_fields: bool) -> str:
    """What an error says to who gave the command.

    Args:
        error: a mistake in arguments, config, data or weights.
        sets_fields: the command takes `--config.field=value`: fields are named so.
    """
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        path = error.filename2 or error.filename
        text = f"{path}: {error.strerror}." if path else f"The system refuses what this needs: {error.strerror}."
        if error.errno in _SYSTEM and (path or error.errno in _OF_NO_PATH):
            text = _SYSTEM[error.errno].format(os.fsdecode(path) if isinstance(path, str | bytes) else "a file")
    text = " ".join(text.split())
    return _FIELD.sub("--config.", text) if sets_fields else text


def reader_has_gone(error: Exception) -> bool:
    """Whether who read stdout has ended, as in `castream models | head`; nothing more is then written there."""
    if not isinstance(error, BrokenPipeError) or sys.stdout is None:
        return False
    stdout = select.poll()
    stdout.register(sys.stdout.fileno(), 0)
    gone = bool(stdout.poll(0))  # asked for nothing, it tells of errors alone
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
    return gone


@contextlib.contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """What users are warned of is a sentence; where in the code it comes from is for all other warnings."""
    usual = warnings.formatwarning

    def formatted(message: Warning | str, category: type[Warning], *where: Any, **line: Any) -> str:
        if category is UserWarning:
            return f"castream, a warning: {' '.join(str(message).split())}\n"
        return usual(message, category, *where, **line)

    warnings.formatwarning = formatted
    try:
        yield
    finally:
        warnings.formatwarning = usual
