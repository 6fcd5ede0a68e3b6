"""What benchmarks measured, beside what is aimed at."""

import math

import pytest

from castream_jax.commands.bench import PROGRAMS
from castream_jax.reporting.benchmarks import FIGURES, benchmarks_table

MACHINE = {"device": "cpu", "cores": 2, "platform": "x", "python": "3", "jax": "0", "castream_jax": "0"}

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
    lines = benchmarks_table({"machine": {**MACHINE, "device": device}, "quick": False, "results": RESULTS})
    assert [" | ".join(line.split(" | ")[1:3]) for line in lines[4:]] == expected


def test_methods_and_programs_have_tables_of_their_own():
    row = {"milliseconds_per_image": 12.34, "forward_passes": 65.4321}
    methods = {"backbone": "resnet8", "images": 4, "size": 32, "metrics": {"AD": row}}
    methods["methods"] = {"gradcam": {**row, "over_pytorch_grad_cam": 3.5}}
    program = {"images_per_second": 24.5, "gflop_per_image": 8.18, "flops_share": 0.8, "megabytes_per_image": 70.1}
    program |= {"bytes_share": 0.25, "peak_bytes": 591827868}
    roofline = {"matrix_flops": 3e11, "copy_bytes": 1.5e10, "dtype": "float32", "batch": 16, "size": 224}
    roofline["programs"] = {"step": program}
    text = "\n".join(
        benchmarks_table({"machine": MACHINE, "quick": False, "results": {"methods": methods, "roofline": roofline}})
    )
    assert "| gradcam | 12.3 | 65.43 | 3.5 |\n| AD | 12.3 | 65.43 | – |" in text
    assert "300 GFLOP/s in a product of float32 matrices and 15.0 GB/s in a copy; 16 images of 224 × 224:" in text
    assert "| step | 24.5 | 8.18 | 80% | 70.1 | 25% | 592 |" in text


def test_what_is_not_a_number_misses_its_aim():
    results = {"deviation": {"official code over bar": math.nan, "torchvision over bar": 0.5}}
    lines = benchmarks_table({"machine": MACHINE, "quick": False, "results": results})
    assert [line.split(" | ")[1] for line in lines[4:]] == ["nan (missed)", "0.50"]


def test_every_program_has_its_figures():
    assert tuple(FIGURES) == PROGRAMS
