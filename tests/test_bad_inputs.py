"""What is said of mistakes: docs/mistakes.md is true, each gets one sentence, and nothing written before is lost."""

from pathlib import Path

from bad_inputs import PAGE, contents, make_inputs, page_with, table
import pytest


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_calls")
def test_every_mistake_gets_its_sentence_and_nothing_is_lost(tmp_path: Path):
    make_inputs(tmp_path)
    before = contents(tmp_path / "run")
    rows = list(table(tmp_path))
    assert len(rows) >= 50
    for given, text in rows:
        assert text != "nothing", given
        for raw in ("exit status", "Traceback", "Errno", "Error:", " object at 0x"):
            assert raw not in text, (given, text)
    assert contents(tmp_path / "run") == before
    assert not (tmp_path / "new").exists()
    assert PAGE.read_text() == page_with(rows), "run python tests/bad_inputs.py --write"
