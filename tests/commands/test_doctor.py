"""`castream doctor` says what is there, and what is not, and goes on."""

from pathlib import Path

import pytest

from castream_jax.cli import main


@pytest.mark.slow
def test_nothing_is_wrong(capsys):
    assert main(["doctor"]) == 0
    assert "\nself-test     right, in " in capsys.readouterr().out


def test_without_a_home_directory_it_goes_on(monkeypatch, capsys):
    """As in a container whose user is not in the list of users."""

    def none(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("CASTREAM_CACHE", raising=False)
    monkeypatch.setattr(Path, "expanduser", none)
    monkeypatch.setattr("castream_jax.commands.doctor._self_test", lambda: "right")
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3].startswith(
        "weights       not kept: There is no home directory to keep downloads in: name a folder"
    )
    assert lines[-1] == "self-test     right"
