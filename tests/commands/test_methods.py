"""`castream methods`: what each method is, and a method of one's own among them."""

from pathlib import Path

import pytest

from castream_jax.attribution import METHODS
from castream_jax.cli import main
from castream_jax.drawing.titles import method_title
from castream_jax.reporting.metric_table import BASELINE_METHODS

OWN = """
from castream_jax.attribution import register_method

@register_method("own", chunked=True, paper="Me, 2026")
def own(inputs):
    '''Sum | of nothing.

    More.
    '''
"""


def test_every_method_has_a_line_and_a_source(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "own.py").write_text(OWN)
    try:
        assert main(["methods", "--import", str(tmp_path / "own.py")]) == 0
    finally:
        METHODS.pop("own", None)
    header, _, *lines = capsys.readouterr().out.splitlines()
    rows = {row[0].strip("`"): row for row in ([cell.strip() for cell in line[1:-1].split(" | ")] for line in lines)}
    assert len(header.split("|")) == 7
    assert rows.keys() == METHODS.keys() | {"own"}
    assert rows.pop("own") == ["`own`", "–", r"Sum \| of nothing.", "many passes", "Me, 2026"]
    for name, (_, title, line, cost, source) in rows.items():
        assert title == method_title(name) != name
        assert line.endswith(".")
        assert "et al., 20" not in line
        assert cost == ("many passes" if METHODS[name].chunked else "one pass")
        assert (source == "–") == (name in BASELINE_METHODS), name
