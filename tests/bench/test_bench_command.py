"""`castream bench`: programs run, figures found, failures named."""

import json
from pathlib import Path

import pytest

from castream_jax.cli import main
from castream_jax.commands.bench import FIGURES, table

MACHINE = {"device": "cpu", "cores": 2, "platform": "x", "python": "3", "jax": "0", "castream_jax": "0"}


@pytest.mark.slow
def test_a_program_is_run_and_its_figures_are_found(tmp_path: Path, capsys):
    out = tmp_path / "new" / "bench.json"
    assert main(["bench", "train_step", "--quick", "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    measured = report["results"]["train_step"]["step_over_forward"]
    assert measured > 0.5
    assert report["results"]["train_step"]["program_seconds"] > 0
    assert f"| training step ÷ forward pass | {measured:.2f} | ≤ 1.05 |" in capsys.readouterr().out


def test_what_misses_its_aim_says_so_and_what_was_not_measured_has_a_dash():
    results = {
        "train_step": {"step_over_forward": 1.5},
        "forward": {"backbones": {"resnet50": {"ratio": 1.2}, "convnext_tiny": {"ratio": None}}},
    }
    lines = table({"machine": MACHINE, "quick": False, "results": results})
    text = [line.split(" | ")[1] for line in lines[4:]]
    assert text == ["1.50 (missed)", "1.20", "–", "–"]


def test_a_program_that_fails_is_named_and_the_others_are_told(tmp_path: Path, capsys):
    (tmp_path / "loading.py").write_text("raise SystemExit('no memory')")
    (tmp_path / "explain.py").write_text('print(\'{"second_start": {"seconds": 4.25}}\')')
    assert main(["bench", "loading", "explain", "--benchmarks", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "These benchmarks failed, as they said above: loading." in captured.err
    assert "| 4.25 | ≤ 5 |" in captured.out


def test_unknown_names_and_an_installation_without_programs(tmp_path: Path, capsys):
    assert main(["bench", "backward"]) == 2
    assert "There is no benchmark 'backward': choose from forward" in capsys.readouterr().err
    assert main(["bench", "loading", "--benchmarks", str(tmp_path)]) == 2
    assert "give --benchmarks=PATH" in capsys.readouterr().err


def test_every_program_is_there():
    folder = Path(__file__).parents[2] / "benchmarks"
    assert all((folder / f"{name}.py").is_file() for name in FIGURES)
