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
    row = f"| training step ÷ forward pass, ResNet-50 | {measured:.2f} | ≤ 1.05 |"
    assert row in capsys.readouterr().out
    assert row in out.with_suffix(".md").read_text()
    assert (
        report["results"]["train_step"]["peak_bytes"]["step"] > report["results"]["train_step"]["peak_bytes"]["forward"]
    )


RESULTS = {
    "train_step": {"step_over_forward": 1.5, "over_pytorch": 1.1, "images_per_second": {"step": 24.0}},
    "loading": {},
}


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("cpu", ["1.50 (missed) | ≤ 1.05", "1.10 | ≥ 1.05", "24.00 | –", "– | –", "– | ≤ 1.15", "– | ≤ 3"]),
        (
            "H200",
            [
                "1.50 (missed) | ≤ 1.1",
                "1.10 (missed) | ≥ 1.2",
                "24.00 (missed) | ≥ 10000",
                "– | ≤ 0.03",
                "– | ≤ 1.15",
                "– | ≤ 3",
            ],
        ),
    ],
)
def test_what_misses_its_aim_says_so_and_what_was_not_measured_has_a_dash(device: str, expected: list[str]):
    lines = table({"machine": {**MACHINE, "device": device}, "quick": False, "results": RESULTS})
    assert [" | ".join(line.split(" | ")[1:3]) for line in lines[4:]] == expected


def test_methods_and_programs_have_tables_of_their_own():
    row = {"milliseconds_per_image": 12.34, "forward_passes": 65.4321}
    methods = {"backbone": "resnet8", "images": 4, "size": 32, "metrics": {"AD": row}}
    methods["methods"] = {"gradcam": {**row, "over_pytorch_grad_cam": 3.5}}
    program = {"images_per_second": 24.5, "gflop_per_image": 8.18, "flops_share": 0.8, "megabytes_per_image": 70.1}
    program |= {"bytes_share": 0.25, "peak_bytes": 591827868}
    roofline = {"matrix_flops": 3e11, "copy_bytes": 1.5e10, "dtype": "float32", "batch": 16, "size": 224}
    roofline["programs"] = {"step": program}
    text = "\n".join(table({"machine": MACHINE, "quick": False, "results": {"methods": methods, "roofline": roofline}}))
    assert "| gradcam | 12.3 | 65.43 | 3.5 |\n| AD | 12.3 | 65.43 | – |" in text
    assert "300 GFLOP/s in a product of float32 matrices and 15.0 GB/s in a copy; 16 images of 224 × 224:" in text
    assert "| step | 24.5 | 8.18 | 80% | 70.1 | 25% | 592 |" in text


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


def test_unknown_names_and_an_installation_without_programs(tmp_path: Path, capsys):
    assert main(["bench", "backward"]) == 2
    assert "There is no benchmark 'backward': choose from deviation, forward" in capsys.readouterr().err
    assert main(["bench", "loading", "--benchmarks", str(tmp_path)]) == 2
    assert "give --benchmarks=PATH" in capsys.readouterr().err


def test_every_program_is_there():
    folder = Path(__file__).parents[2] / "benchmarks"
    assert all((folder / f"{name}.py").is_file() for name in FIGURES)
