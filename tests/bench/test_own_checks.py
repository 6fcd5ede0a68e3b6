"""The programs of `benchmarks/`: all that was measured is printed, and then a bar that was missed ends the program."""

import importlib
import json
import math
from pathlib import Path
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """Imports a module of `benchmarks/`; what is imported for a test is forgotten after it, names there being short."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for path in FOLDER.glob("*.py"):
        monkeypatch.setitem(sys.modules, path.stem, None)  # what was there comes back
        del sys.modules[path.stem]
    return importlib.import_module


@pytest.fixture
def program(load) -> ModuleType:
    return load("program")


def test_numbers_are_printed_before_the_error(program: ModuleType, capsys):
    missed = program.above({"a": 1.0, "b": 2.0}, {"a": 1.5, "b": 2.0, "c": 9.0}, of="theirs")
    with pytest.raises(SystemExit, match=r"^Missed: a of theirs: 1\.5, 1\.5 times its bar of 1\.$"):
        program.finish({"a": 1.5}, missed)
    assert json.loads(capsys.readouterr().out) == {"a": 1.5, "missed": ["a of theirs: 1.5, 1.5 times its bar of 1"]}


def test_nothing_missed(program: ModuleType, capsys):
    program.finish({"a": 1.5})
    assert json.loads(capsys.readouterr().out) == {"a": 1.5}


def test_what_is_not_a_number_is_above_its_bar(program: ModuleType):
    assert program.above({"a": 1.0}, {"a": math.nan}, of="theirs") == ["a of theirs: nan, nan times its bar of 1"]


def test_options_given_beside_quick_count(program: ModuleType, monkeypatch: pytest.MonkeyPatch):
    def batch_and_rounds(*given: str) -> tuple[int, int]:
        monkeypatch.setattr(sys, "argv", ["forward.py", *given])
        parser = program.new_parser("")
        parser.add_argument("--batch", type=int, default=16)
        parser.add_argument("--rounds", type=int, default=9)
        arguments = program.parse(parser, batch=2, rounds=1)
        return arguments.batch, arguments.rounds

    assert batch_and_rounds() == (16, 9)
    assert batch_and_rounds("--quick") == (2, 1)
    assert batch_and_rounds("--batch", "3", "--quick") == (3, 1)
    with pytest.raises(SystemExit):
        batch_and_rounds("--qui")


@pytest.mark.parametrize("found", [2e-4, math.nan])
def test_deviations_beyond_the_bar(found: float, load, monkeypatch: pytest.MonkeyPatch, capsys):
    deviation = load("deviation")
    monkeypatch.setattr(sys, "argv", ["deviation.py"])
    monkeypatch.setattr(deviation, "ABSENT", "")
    monkeypatch.setattr(deviation, "official_code", lambda _: {"logits": 1e-5, "gradcam maps": found, "AD": 1e-5})
    monkeypatch.setattr(deviation, "torchvision", lambda _: {"resnet18 logits": 1e-5})
    with pytest.raises(
        SystemExit, match=rf"^Missed: gradcam maps of official code: {found:g}, .* its bar of 0.0001\.$"
    ):
        deviation.main()
    report = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(report["official code over bar"], found / 1e-4)
    assert report["torchvision over bar"] == 0.1
    assert report["official code"]["logits"] == 1e-5


def test_a_mean_of_fewer_images_has_a_wider_bar(load):
    deviation = load("deviation")
    found = {"official code": {"mean I, points": 0.15, "gradcam maps": 1.5e-4}}
    assert len(deviation.judged(found)[1]) == 2
    assert deviation.judged(found, images=50)[1] == [
        "gradcam maps of official code: 0.00015, 1.5 times its bar of 0.0001"
    ]


def test_a_deviation_that_is_not_a_number_stays_so(load):
    names = ("map", "AD", "AG", "AI", "I", "D", "p", "o")
    theirs = {("ca", "gradcam"): {name: np.full(2, 0.25) for name in names}}
    ours = {("ca", "gradcam"): theirs["ca", "gradcam"] | {"AD": np.array([0.25, math.nan]), "D": np.full(2, math.nan)}}
    found = load("evaluation_report").deviation(ours, theirs)
    assert [name for name, value in found.items() if math.isnan(value)] == ["AD", "D"]


def test_a_start_that_explains_too_few_images_is_told_after_the_times(load, monkeypatch: pytest.MonkeyPatch, tmp_path):
    explain = load("explain")
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, '{"images": [1]}')
    )
    missed = []
    assert explain.start(tmp_path, tmp_path, tmp_path, missed=missed).keys() == {"seconds", "cpu_seconds"}
    assert not missed
    assert explain.start(tmp_path, tmp_path, tmp_path, tmp_path, missed=missed)["seconds"] >= 0
    assert missed == ["images that a start explained: 1 of 2"]


def test_what_of_two_runs_differs(load):
    interruptions = load("interruptions")
    assert interruptions._differing([1, 2, 3], [1, 2, 3], same=int.__eq__) == (0, 3)
    assert interruptions._differing([1, 2, 3], [1, 5], same=int.__eq__) == (2, 3)


def test_padding_is_no_image(load):
    count = load("data_pipeline").number_of_images
    pixels = np.zeros((4, 2, 2, 3), np.uint8)
    assert count({"pixels": pixels, "mask": np.array([True, True, True, False])}) == 3
    assert count({"pixels": pixels}) == 4
    assert count((pixels, np.zeros(4))) == 4
