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
        aim: the number aimed at on two CPU cores in float32.
        at_most: whether smaller is better.
    """

    title: str
    path: tuple[str, ...]
    aim: float
    at_most: bool = False


# Program -> its figures. `evaluation` writes its JSON to a file; the others print it.
FIGURES = {
    "forward": (
        Figure("forward pass of ResNet-50 ÷ PyTorch, channels last", ("backbones", "resnet50", "ratio"), 1.0),
        Figure("forward pass of ConvNeXt-T ÷ PyTorch", ("backbones", "convnext_tiny", "ratio"), 0.8),
        Figure("forward pass of EfficientNet-B0 ÷ PyTorch", ("backbones", "efficientnet_b0", "ratio"), 0.8),
    ),
    "train_step": (Figure("training step ÷ forward pass", ("step_over_forward",), 1.05, at_most=True),),
    "many_streams": (Figure("step of seven streams ÷ step of one", ("many_over_one",), 1.15, at_most=True),),
    "evaluation": (
        Figure("three methods, five metrics: official procedure ÷ ours", ("speed_up", "official"), 3.0),
        Figure("the same: PyTorch at its best ÷ ours", ("speed_up", "best"), 1.8),
        Figure("the same: share of the distinct forward passes alone", ("share_of_floor",), 0.9),
    ),
    "loading": (Figure("peak memory of loading ÷ parameters", ("peak_over_parameter_bytes",), 3.0, at_most=True),),
    "explain": (
        Figure("seconds to the first explanation, second start", ("second_start", "seconds"), 5.0, at_most=True),
    ),
}


def add(commands: Any) -> None:
    """Adds the parser to the sub-parsers of `castream`."""
    text = "Measure speed and memory on this machine; PyTorch beside, where it is installed."
    command = commands.add_parser("bench", help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=_bench)
    command.add_argument(
        "programs", nargs="*", metavar="NAME", help=f"of {', '.join(FIGURES)}; by default all, in half an hour or so"
    )
    command.add_argument("--quick", action="store_true", help="small forms, which only show that all of it works")
    command.add_argument("--out", metavar="FILE", help="JSON of all that the programs measured")
    command.add_argument("--benchmarks", metavar="DIR", help="by default the benchmarks/ beside the package")


def _bench(arguments: argparse.Namespace, overrides: list[str]) -> None:  # as the command line calls it
    run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Runs the programs and prints a table.

    Raises:
        ValueError: if a name is unknown, there are no programs, or one of them failed.
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
    from castream_jax.progress import Progress

    say = Progress("bench", total=len(names), unit="programs").say
    results, failed = {}, []
    for number, name in enumerate(names, 1):
        say(f"{number} of {len(names)}: {name}")
        result = _measure(folder / f"{name}.py", quick=arguments.quick)
        if result is None:
            failed.append(name)
        else:
            results[name] = result
    report = {"machine": _machine(), "quick": arguments.quick, "results": results}
    if arguments.out:
        path = Path(arguments.out)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print("\n".join(table(report)))
    if failed:
        raise ValueError(f"These benchmarks failed, as they said above: {', '.join(failed)}.")


def table(report: Mapping[str, Any]) -> list[str]:
    """The figures of a report in Markdown; what a program could not measure, for want of PyTorch, has a dash."""
    machine = report["machine"]
    lines = [
        f"{machine['device']}, {machine['cores']} cores, {machine['platform']}, Python {machine['python']}, "
        f"jax {machine['jax']}, castream_jax {machine['castream_jax']}"
        + (" (small forms: only to show that they work)" if report["quick"] else ""),
        "",
        "| what | measured | aim | command |",
        "|---|---:|---:|---|",
    ]
    for name, result in report["results"].items():
        for figure in FIGURES[name]:
            value: Any = result
            for key in figure.path:
                value = value.get(key) if isinstance(value, Mapping) else None
            missed = value is not None and (value > figure.aim if figure.at_most else value < figure.aim)
            text = "–" if value is None else f"{value:.2f}{' (missed)' if missed and not report['quick'] else ''}"
            aim = f"{'≤' if figure.at_most else '≥'} {figure.aim:g}"
            lines.append(f"| {figure.title} | {text} | {aim} | `benchmarks/{name}.py` |")
    return lines


def _measure(program: Path, *, quick: bool) -> dict[str, Any] | None:
    """What a program measured, with the seconds it took; None if it failed, of which it has told."""
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary, "result.json")
        options = ["--quick"] * quick + (["--json", str(file)] if program.stem == "evaluation" else [])
        begin = time.perf_counter()
        done = subprocess.run([sys.executable, str(program), *options], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            return None
        result = json.loads(file.read_text() if file.exists() else done.stdout)
    return result | {"program_seconds": round(time.perf_counter() - begin, 1)}


def _machine() -> dict[str, Any]:
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
    }
