"""Sentences of the command line: what the system answers, fields as they are set there, warnings."""

import errno
import os
from pathlib import Path
import warnings

import pytest

from castream_jax.commands.mistakes import sentence, warnings_in_one_line


@pytest.mark.parametrize("number", [errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EACCES, errno.ENOSPC, errno.ELOOP])
def test_what_the_system_answers_is_a_sentence_with_the_path(number: int):
    said = sentence(OSError(number, os.strerror(number), "/a/b"), sets_fields=False)
    assert "/a/b" in said
    assert "Errno" not in said
    assert said.endswith(".")


def test_other_answers_of_the_system_keep_their_words(tmp_path: Path):
    assert sentence(OSError(errno.EIO, "Input/output error", "/a"), sets_fields=False) == "/a: Input/output error."
    assert sentence(FileNotFoundError("There is none."), sets_fields=False) == "There is none."
    refused = sentence(PermissionError(errno.EACCES, "Permission denied"), sets_fields=False)  # of no file
    assert refused == "The system refuses what this needs: Permission denied."
    assert sentence(OSError(errno.ENOSPC, "No space"), sets_fields=False).startswith(
        "There is no room on the disk for a"
    )
    with pytest.raises(NotADirectoryError) as error:
        (Path(__file__) / "x").read_text()
    assert sentence(error.value, sets_fields=True).startswith(f"{__file__}/x cannot be reached: something on the way")


def test_fields_are_named_as_the_command_line_sets_them():
    text = "W/config.json: set config.train.accumulate,\n--config.seed or config.data.on_error='skip' (my.config.name)."
    said = (
        "W/config.json: set --config.train.accumulate, --config.seed or --config.data.on_error='skip' (my.config.name)."
    )
    assert sentence(ValueError(text), sets_fields=True) == said
    assert sentence(ValueError(text), sets_fields=False) == text.replace("\n", " ")


def test_a_warning_is_a_line(recwarn):
    with warnings_in_one_line():
        assert warnings.formatwarning("two\nlines", UserWarning, "f.py", 3) == "castream, a warning: two lines\n"
        assert "f.py:3: DeprecationWarning: old" in warnings.formatwarning("old", DeprecationWarning, "f.py", 3)
    assert "f.py" in warnings.formatwarning("two", UserWarning, "f.py", 3)
