"""`castream bench`: programs run, figures found, failures named."""

import json
from pathlib import Path

import pytest

from castream_jax.cli import main
from castream_jax.commands import bench
from castream_jax.commands.bench import PROGRAMS

MACHINE = {"device": "cpu", "cores": 2, "platform": "x", "python": "3", "jax": "0", "castream_jax": "0"}


@pytest.fixture(autouse=True)
def at_hand(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Everyday tests do not start JAX to ask which machine this is."""
    if "slow" not in request.keywords:
        monkeypatch.setattr(bench, "_MACHINE", f"import json; print(json.dumps({MACHINE}))")


@pytest.mark.slow
@pytest.mark.system
def test_a_program_is_run_and_its_figures_are_found(tmp_path: Path, capsys):
    out = tmp_path / "new" / "bench.json"
    assert main(["bench", "loading", "--quick", "--out", str(out)]) == 0
    result = json.loads(out.read_text())["results"]["loading"]
    assert result["program_seconds"] > 0
    row = f"| peak memory of loading ÷ parameters | {result['peak_over_parameter_bytes']:.2f} | ≤ 3 |"
    assert row in capsys.readouterr().out
    assert row in out.with_suffix(".md").read_text()


def test_no_program_is_started_when_time_is_up(tmp_path: Path, capsys):
    (tmp_path / "loading.py").write_text("print('{}')")
    (tmp_path / "explain.py").write_text("raise SystemExit(1)")
    assert main(["bench", "loading", "explain", "--benchmarks", str(tmp_path), "--seconds", "0.001"]) == 0
    captured = capsys.readouterr()
    assert "no time is left for explain" in captured.err
    assert "second start" not in captured.out


def test_what_was_measured_before_stays_in_the_file(tmp_path: Path, capsys):
    out, programs = tmp_path / "bench.json", ["--benchmarks", str(tmp_path)]
    for name, seconds in (("loading", 1.5), ("explain", 2.5), ("explain", 3.5)):
        text = {"peak_over_parameter_bytes": seconds, "second_start": {"seconds": seconds}}
        (tmp_path / f"{name}.py").write_text(f"print({json.dumps(json.dumps(text))})")
        assert main(["bench", name, "--out", str(out), *programs]) == 0
    last = capsys.readouterr().out.splitlines()[-2:]
    assert [row.split(" | ")[1] for row in last] == ["1.50", "3.50"]
    elsewhere = json.loads(out.read_text())
    elsewhere["machine"]["jax"] = "0.0"
    out.write_text(json.dumps(elsewhere))
    assert main(["bench", "loading", "--out", str(out), *programs]) == 0
    assert list(json.loads(out.read_text())["results"]) == ["loading"]


def test_a_program_that_fails_is_named_and_the_others_are_told(tmp_path: Path, capsys):
    (tmp_path / "loading.py").write_text("raise SystemExit('no memory')")
    (tmp_path / "explain.py").write_text('print(\'{"second_start": {"seconds": 4.25}}\')')
    assert main(["bench", "loading", "explain", "--benchmarks", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "These benchmarks failed, as they said above: loading." in captured.err
    assert "| 4.25 | ≤ 5 |" in captured.out


DEVIATIONS = {"official code over bar": 2.0, "torchvision over bar": 0.5, "missed": ["logits of official code: 2e-04"]}


@pytest.mark.parametrize("options", [[], ["--quick"]])
def test_what_was_measured_is_kept_when_the_programs_own_check_fails(options: list[str], tmp_path: Path, capsys):
    text = f"import sys; print({json.dumps(json.dumps(DEVIATIONS))}); sys.exit('Missed: logits.')"
    (tmp_path / "deviation.py").write_text(text)
    (tmp_path / "explain.py").write_text('print(\'{"second_start": {"seconds": 6}}\')')
    out = tmp_path / "bench.json"
    command = ["bench", "deviation", "explain", "--out", str(out), "--benchmarks", str(tmp_path), *options]
    assert main(command) == 2
    captured = capsys.readouterr()
    assert "These benchmarks failed, as they said above: deviation." in captured.err
    kept = json.loads(out.read_text())["results"]["deviation"]
    assert kept.pop("program_seconds") >= 0
    assert kept == DEVIATIONS | {"exit_status": 1}
    lines = out.with_suffix(".md").read_text().splitlines()
    assert lines[2:] == captured.out.splitlines()
    cells = {line.split(" | ")[0]: line.split(" | ")[1] for line in lines if " | " in line}
    assert cells["| largest deviation over its bar, official code"] == "2.00 (missed)"
    assert cells["| the same, logits of torchvision"] == "0.50"
    assert cells["| seconds to the first explanation, second start"] == ("6.00" if options else "6.00 (missed)")
    assert "`benchmarks/deviation.py` failed with status 1: logits of official code: 2e-04." in lines


def test_a_program_that_works_again_has_failed_no_longer(tmp_path: Path, capsys):
    out = tmp_path / "bench.json"
    for status in (1, 0):
        (tmp_path / "loading.py").write_text(f"print('{{}}'); raise SystemExit({status})")
        assert main(["bench", "loading", "--out", str(out), "--benchmarks", str(tmp_path)]) == 2 * status
    assert "exit_status" not in json.loads(out.read_text())["results"]["loading"]
    assert capsys.readouterr().out.count("`benchmarks/loading.py` failed with status 1: see what it said.") == 1


def test_a_program_that_prints_no_numbers_is_named(tmp_path: Path, capsys):
    (tmp_path / "loading.py").write_text("print('done')")
    assert main(["bench", "loading", "--benchmarks", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "loading printed no numbers" in error
    assert "These benchmarks failed, as they said above: loading." in error


def test_unknown_names_and_an_installation_without_programs(tmp_path: Path, capsys):
    assert main(["bench", "backward"]) == 2
    assert "There is no benchmark 'backward': choose from deviation, compilations, forward" in capsys.readouterr().err
    assert main(["bench", "loading", "--benchmarks", str(tmp_path)]) == 2
    assert "give --benchmarks=PATH" in capsys.readouterr().err


def test_every_program_is_there():
    folder = Path(__file__).parents[2] / "benchmarks"
    assert all((folder / f"{name}.py").is_file() for name in PROGRAMS)
