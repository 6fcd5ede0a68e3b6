"""The sanity check as a matrix: a row for what was randomised so far, a column for each map, expectations marked."""

from collections.abc import Mapping
from dataclasses import dataclass
import re
from typing import Any, Literal, NamedTuple

from castream_jax.drawing.titles import REFERENCE_HEAD, head_title, method_title
from castream_jax.reporting.in_words import UNCHANGED

# `reads_none`: nothing that this map reads was randomised in this row; `changed`, `unchanged`: something was.
Outcome = Literal["reads_none", "changed", "unchanged"]

_FIRST_ROWS = {"nothing": "nothing", "classifier": "classifier"}


class SanityCell(NamedTuple):
    """A rank correlation as printed, and whether it is what one expects of an explanation."""

    text: str
    outcome: Outcome


@dataclass(frozen=True)
class SanityTable:
    """`columns` are (method, head) as printed; each of `rows` is what was randomised, and its cells."""

    columns: list[tuple[str, str]]
    rows: list[tuple[str, list[SanityCell]]]


def sanity_table(summary: Mapping[str, Any], config: Mapping[str, Any]) -> SanityTable | None:
    """None where there was no check.

    Args:
        summary: contents of `evaluation/summary.json`.
        config: of the workdir, which says what each stream's attention reads.
    """
    entries = summary.get("sanity")
    if not entries:
        return None
    values = {(e["randomised"], e["method"], e["head"]): e["rank_correlation"] for e in entries}
    columns = list(dict.fromkeys((e["method"], e["head"]) for e in entries))
    columns.sort(key=lambda column: ([e["method"] for e in summary["metrics"]].index(column[0]), column[1] != "gap"))
    stages = [name for name in dict.fromkeys(e["randomised"] for e in entries) if name not in _FIRST_ROWS]
    streams = config.get("streams", {})
    rows = []
    for name in dict.fromkeys(e["randomised"] for e in entries):
        cells = [
            _cell(values.get((name, *column)), _reads_any(name, *column, stages, streams.get(column[1], {})))
            for column in columns
        ]
        rows.append((_FIRST_ROWS.get(name, f"… and {name}"), cells))
    return SanityTable([(method_title(method), head_title(head)) for method, head in columns], rows)


def _cell(value: float | None, reads_any: bool) -> SanityCell:
    text = "–" if value is None else f"{value:z.2f}".replace("-", "−")
    if not reads_any or value is None:
        return SanityCell(text, "reads_none")
    return SanityCell(text, "unchanged" if value > UNCHANGED else "changed")


def _reads_any(randomised: str, method: str, head: str, stages: list[str], stream: Mapping[str, Any]) -> bool:
    """Whether a map reads any parameter that is random in the row of this name, in which those above it are, too."""
    if randomised == "nothing":
        return False
    raw = re.fullmatch(r"(?:inverted-)?attention(?:_logits)?(?::(\d+))?(?::\d+)?", method)
    if raw is None or head == REFERENCE_HEAD:
        return True
    if randomised == "classifier":
        return False
    # Attention at a stage reads the blocks before it; of its own, keys, which `ca` blocks do not have, or the token
    # with which the stream starts.
    stage, last_drawn = int(raw[1]) if raw[1] else max(map(_number, stages)), _number(randomised)
    reads_own = stream.get("block") == "proj_ca" or stage == stream.get("start_stage", 0)
    return last_drawn < stage or (last_drawn == stage and reads_own)


def _number(stage: str) -> int:
    digits = re.fullmatch(r"S(\d+)", stage)
    return int(digits[1]) if digits else -1
