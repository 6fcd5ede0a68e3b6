"""Lists of names: a file of the names of the classes."""

from pathlib import Path

import pytest

from castream_jax.commands.named_lists import read_class_names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names.txt has no names: one per line, in the order of the classes"),
        ("\n  \n\n", "names.txt has no names"),
        ("cat\n\ndog\n", "Line 2 of .*names.txt is blank: give a name for every class"),
        ("\ncat\n", "Line 1 of .*names.txt is blank"),
        ("cat\n", "names.txt has 1 names, and the model 2 classes"),
    ],
)
def test_a_file_of_names_has_one_in_each_line(text: str, said: str, tmp_path: Path):
    path = tmp_path / "names.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_class_names(str(path), 2)
    path.write_bytes(b"\xef\xbb\xbfcat \r\nbig dog\r\n\r\n \n")
    assert read_class_names(str(path), 2) == ("cat", "big dog")
