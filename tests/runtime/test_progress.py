"""What is said of a task while it is silent itself."""

import time

import pytest

from castream_jax.runtime import progress
from castream_jax.runtime.progress import Progress


def test_a_first_call_says_that_it_compiles_and_later_ones_nothing(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(progress, "_SECONDS_OF_SILENCE", 0.02)
    slow = Progress("train", total=1, unit="steps").first_call(lambda seconds: time.sleep(seconds) or seconds)
    assert slow(0.2) == 0.2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "train  compiling … 0:00"
    assert len(said) > 1
    assert slow(0.1) == 0.1
    assert capsys.readouterr().err == ""


def test_it_ends_with_a_call_that_fails(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(progress, "_SECONDS_OF_SILENCE", 0.02)
    with pytest.raises(ZeroDivisionError):
        Progress("train", total=1, unit="steps").first_call(lambda: 1 // 0)()
    time.sleep(0.1)
    assert capsys.readouterr().err == ""
