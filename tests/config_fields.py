"""Every field of a config with type, default, meaning and allowed values, from the code.

python tests/config_fields.py            prints the tables of docs/config.md
python tests/config_fields.py --write    puts them there

The meaning is the comment on the field, or above it, in castream_jax/experiment/config.py.
"""

from collections.abc import Iterator
from pathlib import Path
import re
import sys
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from castream_jax.experiment import config as config_module
from castream_jax.experiment.config import base_config, stream_config
from castream_jax.experiment.ranges import allowed_values

PAGE = Path(__file__).parents[1] / "docs" / "config.md"
MARK = "<!-- python tests/config_fields.py --write -->"

# A field in the module: `"epochs": 90,` in the dictionary of a section, or `config.name = "experiment"`.
_FIELD = re.compile(r'\s+(?:"(\w+)": |config\.(\w+) = )(?!ConfigDict)[^#]*?(?:  # (.*))?$')
_SECTION = re.compile(r"    config\.(\w+) = ConfigDict\(|def (stream)_config")


class FieldRow(NamedTuple):
    """One field as the page prints it."""

    name: str
    kind: str
    default: str
    meaning: str
    allowed: str


def field_rows() -> dict[str, list[FieldRow]]:
    """The fields by section; those of the config itself under an empty one.

    Raises:
        ValueError: a field has no meaning.
    """
    meanings, allowed = dict(_meanings()), allowed_values()
    config = base_config()
    with config.unlocked():
        config.streams = {"NAME": stream_config()}
    values = dict(_values(config))
    if missing := [name for name in values if not meanings.get(name)]:
        raise ValueError(f"No comment in config.py says what these fields mean: {', '.join(missing)}.")
    rows: dict[str, list[FieldRow]] = {}
    for name, meaning in meanings.items():  # in the order of the code
        value = values[name]
        row = FieldRow(name, type(value).__name__, repr(value), meaning, allowed.get(name, ""))
        rows.setdefault(name.rpartition(".")[0], []).append(row)
    return rows


def _values(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _values(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _meanings() -> Iterator[tuple[str, str]]:
    """(name of a field, its comment); what is said above a field and beside it is joined."""
    section, above = "", []
    code = Path(config_module.__file__).read_text(encoding="utf-8").partition("\ndef open_config")[0]
    for line in code.splitlines():
        if begins := _SECTION.match(line):
            section, above = begins[1] or "streams.NAME", []
        elif field := _FIELD.match(line):
            yield field[2] or f"{section}.{field[1]}", " ".join([*above, *filter(None, [field[3]])])
            above = []
        elif comment := re.fullmatch(r"\s+# (.*)", line):
            above.append(comment[1])
        else:
            above = []


def page_with(rows: dict[str, list[FieldRow]]) -> str:
    """docs/config.md with the tables in place of what is there below the mark."""

    def cell(text: str) -> str:
        return text.replace("|", "\\|").replace("<", "&lt;")

    lines = [MARK]
    for section, fields in rows.items():
        lines += ["", f"## {f'`config.{section}`' if section else 'The config itself'}", ""]
        lines += ["| field | type | default | meaning | allowed |", "|---|---|---|---|---|"]
        lines += [
            f"| `{row.name}` | {row.kind} | `{cell(row.default)}` | {cell(row.meaning)} | {cell(row.allowed)} |"
            for row in fields
        ]
    return PAGE.read_text(encoding="utf-8").partition(MARK)[0] + "\n".join([*lines, ""])


if __name__ == "__main__":
    page = page_with(field_rows())
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page, encoding="utf-8")
    else:
        print(page.partition(MARK)[2].strip())
