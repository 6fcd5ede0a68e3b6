"""`castream bench`: the programs in `benchmarks/`, one after the other, and their figures beside what is aimed at."""

import argparse
from collections.abc import Mapping
import json
from pathlib import Path
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple


class Figure(NamedTuple):
    """One number of a program.

    Attributes:
        title: what it is.
        path: keys that lead to it in the program's JSON.
        aim: the number aimed at on two CPU cores in float32; None for none.
        on_accelerator: that on one accelerator with a bfloat16 trunk.
        at_most: whether smaller is better.
    """

    title: str
    path: tuple[str, ...]
    aim: float | None
    on_accelerator: float | None = None
    at_most: bool = False


# Program -> its figures. Correctness comes first: speed means nothing where the numbers move.
FIGURES = {
    "deviation": (
        Figure("largest deviation over its bar, official code", ("official code over bar",), 1, 1, at_most=True),
        Figure("the same, logits of torchvision", ("torchvision over bar",), 1, 1, at_most=True),
    ),
    "forward": (
        Figure("forward pass of ResNet-50 ÷ PyTorch", ("backbones", "resnet50", "ratio"), 1.0, 1.0),
        Figure("the same ÷ PyTorch compiled", ("backbones", "resnet50", "ratio_compiled"), None),
        Figure("forward pass of ConvNeXt-T ÷ PyTorch", ("backbones", "convnext_tiny", "ratio"), 0.8, 0.8),
        Figure("the same ÷ PyTorch compiled", ("backbones", "convnext_tiny", "ratio_compiled"), None),
        Figure("forward pass of EfficientNet-B0 ÷ PyTorch", ("backbones", "efficientnet_b0", "ratio"), 0.8, 0.8),
        Figure("the same ÷ PyTorch compiled", ("backbones", "efficientnet_b0", "ratio_compiled"), None),
    ),
    "train_step": (
        Figure("training step ÷ forward pass, ResNet-50", ("step_over_forward",), 1.05, 1.10, at_most=True),
        Figure("training images/s ÷ PyTorch's best", ("over_pytorch",), 1.05, 1.2),
        Figure("training images/s", ("images_per_second", "step"), None, 10_000),
        Figure("share of time between steps in which the device waits", ("host_gap",), None, 0.03, at_most=True),
        Figure("step of seven streams ÷ step of one", ("seven_over_one",), 1.15, 1.15, at_most=True),
    ),
    "evaluation": (
        Figure("three methods, two heads, five metrics: official procedure ÷ ours", ("speed_up", "official"), 3, 10),
        Figure("the same: PyTorch at its best, compiled ÷ ours", ("speed_up", "best"), 1.8, 2),
        Figure("the same: pytorch-grad-cam and RISE ÷ ours", ("speed_up", "usual"), 3, 10),
        Figure("Score-CAM masks/s ÷ images/s of forward passes alone", ("scorecam_share",), 0.95, 0.9),
        Figure("evaluation: share of the floor of distinct forward passes", ("share_of_floor",), 0.9, 0.85),
        Figure("hours for 50,000 images", ("hours_for_50000_images",), None, 1, at_most=True),
    ),
    "data_pipeline": (
        Figure(
            "images read per core-second ÷ PyTorch's worker, evaluation",
            ("evaluation (squash)", "ratio_to_torch_one_worker"),
            1.5,
        ),
        Figure("the same, training", ("training (random crop, flip, brightness)", "ratio_to_torch_one_worker"), 1.5),
    ),
    "methods": (),
    "roofline": (),
    "loading": (Figure("peak memory of loading ÷ parameters", ("peak_over_parameter_bytes",), 3, 3, at_most=True),),
    "explain": (
        Figure("seconds to the first explanation, second start", ("second_start", "seconds"), 5, at_most=True),
    ),
}


_MACHINE = """
import json
from castream_jax.commands.bench import machine
from castream_jax.runtime.cpu import prepare_cpu
prepare_cpu()
print(json.dumps(machine()))
"""


def add(commands: Any) -> None:
    """Adds the parser to the sub-parsers of `castream`."""
    text = "Measure speed and memory on this machine; PyTorch beside, where it is installed."
    command = commands.add_parser("bench", help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=_bench)
    command.add_argument(
        "programs", nargs="*", metavar="NAME", help=f"of {', '.join(FIGURES)}; by default all, in half an hour or so"
    )
    command.add_argument("--quick", action="store_true", help="small forms, which only show that all of it works")
    command.add_argument(
        "--out",
        metavar="FILE.json",
        help="all that was measured, and FILE.md, tables of it; what another run on this machine with these versions "
        "measured stays",
    )
    command.add_argument(
        "--seconds", type=float, help="start no program after so many seconds: for machines lent by the minute"
    )
    command.add_argument("--benchmarks", metavar="DIR", help="by default the benchmarks/ beside the package")


def _bench(arguments: argparse.Namespace, overrides: list[str]) -> None:  # as the command line calls it
    run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Runs the programs and prints a table.

    Raises:
        ValueError: if a name is unknown, there are no programs, or one of them failed, after the table.
    """
    folder = Path(arguments.benchmarks) if arguments.benchmarks else Path(__file__).parents[2] / "benchmarks"
    names = list(dict.fromkeys(arguments.programs)) or list(FIGURES)
    for name in names:
        if name not in FIGURES:
            raise ValueError(f"There is no benchmark {name!r}: choose from {', '.join(FIGURES)}.")
        if not (folder / f"{name}.py").is_file():
            raise ValueError(
                f"There is no {folder / name}.py: give --benchmarks=PATH, the folder benchmarks/ of the repository."
            )
    from castream_jax.runtime.progress import Progress

    say = Progress("bench", total=len(names), unit="programs").say
    # In a process of its own, which gives an accelerator's memory back to the programs.
    of_machine = subprocess.run([sys.executable, "-c", _MACHINE], stdout=subprocess.PIPE, text=True, check=True).stdout
    report: dict[str, Any] = {"machine": json.loads(of_machine), "quick": arguments.quick, "results": {}}
    if arguments.out and Path(arguments.out).exists():
        earlier = json.loads(Path(arguments.out).read_text(encoding="utf-8"))
        if (earlier["machine"], earlier["quick"]) == (report["machine"], report["quick"]):
            report["results"] = earlier["results"]
    failed = []
    begin = time.perf_counter()
    for number, name in enumerate(names, 1):
        if arguments.seconds is not None and time.perf_counter() - begin > arguments.seconds:
            say(f"no time is left for {', '.join(names[number - 1 :])}")
            break
        say(f"{number} of {len(names)}: {name}")
        result = _measure(folder / f"{name}.py", quick=arguments.quick)
        if result is None or "exit_status" in result:
            failed.append(name)
        if result is None:
            say(f"{name} printed no numbers")
        else:
            report["results"][name] = result
            if arguments.out:
                _write(report, Path(arguments.out))
    print("\n".join(table(report)))
    if failed:
        raise ValueError(f"These benchmarks failed, as they said above: {', '.join(failed)}.")


def _write(report: Mapping[str, Any], path: Path) -> None:
    from castream_jax.runtime.atomic_files import write_atomically

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(report, indent=2) + "\n")
    title = f"# Speed and memory: {report['machine']['device']}, {report['machine']['cores']} cores"
    write_atomically(path.with_suffix(".md"), "\n".join([title, "", *table(report), ""]))


def table(report: Mapping[str, Any]) -> list[str]:
    """A report in Markdown; what a program could not measure, for want of PyTorch, has a dash.

    What misses its aim says so; below, the programs whose own check failed, and what they missed by how much.
    """
    machine, results = report["machine"], report["results"]
    accelerator = machine["device"] != "cpu"
    lines = [
        f"{machine['device']}, {machine['cores']} cores, {machine['platform']}, Python {machine['python']}, "
        f"jax {machine['jax']}, castream_jax {machine['castream_jax']}"
        + (" (small forms: only to show that they work)" if report["quick"] else ""),
        "",
        *_header("what", "measured", "aim", "command"),
    ]
    for name, figures in FIGURES.items():
        for figure in figures if name in results else ():
            value: Any = results[name]
            for key in figure.path:
                value = value.get(key) if isinstance(value, Mapping) else None
            aim = figure.on_accelerator if accelerator else figure.aim
            counts = not report["quick"] or "exit_status" in results[name]  # small forms miss aims of speed
            missed = value is not None and aim is not None and not (value <= aim if figure.at_most else value >= aim)
            text = "–" if value is None else f"{value:.2f}{' (missed)' if missed and counts else ''}"
            aimed = "–" if aim is None else f"{'≤' if figure.at_most else '≥'} {aim:g}"
            lines.append(f"| {figure.title} | {text} | {aimed} | `benchmarks/{name}.py` |")
    for name in FIGURES:
        result = results.get(name, {})
        if "exit_status" in result:
            of_program = "; ".join(result.get("missed", ())) or "see what it said"
            lines += ["", f"`benchmarks/{name}.py` failed with status {result['exit_status']}: {of_program}."]
    if "methods" in results:
        lines += _methods_table(results["methods"])
    if "roofline" in results:
        lines += _roofline_table(results["roofline"])
    return lines


def _methods_table(result: Mapping[str, Any]) -> list[str]:
    title = f"Alone, {result['backbone']}, {result['images']} images of {result['size']} × {result['size']}, two heads:"
    lines = ["", title, "", *_header("method or metric", "ms per image", "forward passes", "× pytorch-grad-cam")]
    for name, row in {**result["methods"], **result["metrics"]}.items():
        times = row.get("over_pytorch_grad_cam", "–")
        lines.append(f"| {name} | {row['milliseconds_per_image']:.3g} | {row['forward_passes']:,.4g} | {times} |")
    return lines


def _roofline_table(result: Mapping[str, Any]) -> list[str]:
    matrix, copy, side = result["matrix_flops"] / 1e9, result["copy_bytes"] / 1e9, result["size"]
    title = (
        f"Of the rates that this machine reaches, {matrix:,.0f} GFLOP/s in a product of {result['dtype']} matrices and "
        f"{copy:,.1f} GB/s in a copy; {result['batch']} images of {side} × {side}:"
    )
    columns = ("program", "images/s", "GFLOP per image", "of the matrix rate", "MB per image", "of the copy rate")
    lines = ["", title, "", *_header(*columns, "peak memory, MB")]
    for name, row in result["programs"].items():
        peak = "–" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:,.0f}"
        lines.append(
            f"| {name} | {row['images_per_second']:,.4g} | {row['gflop_per_image']:.3g} | {row['flops_share']:.0%} "
            f"| {row['megabytes_per_image']:.3g} | {row['bytes_share']:.0%} | {peak} |"
        )
    return lines


def _header(first: str, *others: str) -> list[str]:
    return ["| " + " | ".join((first, *others)) + " |", "|---|" + "---:|" * len(others)]


def _measure(program: Path, *, quick: bool) -> dict[str, Any] | None:
    """What a program measured, with the seconds it took and, if that is not 0, its "exit_status".

    A program whose own check fails has printed its numbers before; None if it printed none.
    """
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary, "result.json")
        options = ["--quick"] * quick + (["--json", str(file)] if program.stem == "evaluation" else [])
        begin = time.perf_counter()
        done = subprocess.run([sys.executable, str(program), *options], stdout=subprocess.PIPE, text=True)
        text = file.read_text(encoding="utf-8") if file.exists() else done.stdout
    try:
        result = json.loads(text)
    except json.JSONDecodeError:
        return None
    status = {"exit_status": done.returncode} if done.returncode else {}
    return result | status | {"program_seconds": round(time.perf_counter() - begin, 1)}


def machine() -> dict[str, Any]:
    """What a figure was measured on."""
    import os
    import platform

    import jax

    from castream_jax.version import __version__

    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "platform": platform.machine(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "castream_jax": __version__,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),  # of `prepare_cpu`, and the user's
    }
