"""`castream bench`: runs the programs in `benchmarks/`, one after the other, and keeps what they measured."""

import argparse
from collections.abc import Mapping, Sequence
import json
from pathlib import Path
import subprocess
import sys
import tempfile
import time
from typing import Any

from castream_jax.commands.start import user_path
from castream_jax.runtime.local_path import local_path

# The programs, in the order in which they run. Correctness comes first: speed means nothing where the numbers move.
PROGRAMS = (
    "deviation",
    "compilations",
    "forward",
    "train_step",
    "evaluation",
    "data_pipeline",
    "methods",
    "roofline",
    "loading",
    "explain",
)

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
    command.set_defaults(run=run)
    command.add_argument(
        "programs", nargs="*", metavar="NAME", help=f"{', '.join(PROGRAMS)}; by default all, in half an hour or so"
    )
    command.add_argument("--quick", action="store_true", help="small sizes, which only show that the programs work")
    command.add_argument(
        "--out",
        type=user_path,
        metavar="FILE.json",
        help="file for the results, with tables in FILE.md; those of earlier runs with this machine and these versions "
        "stay in it",
    )
    command.add_argument("--seconds", type=float, help="start no program after this number of seconds")
    command.add_argument(
        "--benchmarks", type=user_path, metavar="DIR", help="by default the benchmarks/ beside the package"
    )


def run(arguments: argparse.Namespace) -> None:
    """Runs the programs and prints a table.

    Raises:
        ValueError: if a name is unknown, there are no programs, or one of them failed, after the table.
    """
    folder = Path(arguments.benchmarks) if arguments.benchmarks else Path(__file__).parents[2] / "benchmarks"
    names = list(dict.fromkeys(arguments.programs)) or PROGRAMS
    _check_names(names, folder)
    from castream_jax.reporting.benchmarks import benchmarks_table
    from castream_jax.runtime.progress import Progress

    say = Progress("bench", total=len(names), unit="programs").say
    out = local_path(arguments.out) if arguments.out else None
    report = _new_report(arguments.quick, out)
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
            continue
        report["results"][name] = result
        if out is not None:
            _write(report, out)
    print("\n".join(benchmarks_table(report)))
    if failed:
        raise ValueError(f"These benchmarks failed, as they said above: {', '.join(failed)}.")


def _check_names(names: Sequence[str], folder: Path) -> None:
    for name in names:
        if name not in PROGRAMS:
            raise ValueError(f"There is no benchmark {name!r}: choose from {', '.join(PROGRAMS)}.")
        if not (folder / f"{name}.py").is_file():
            raise ValueError(
                f"There is no {folder / name}.py: give --benchmarks=PATH, the folder benchmarks/ of the repository."
            )


def _new_report(quick: bool, out: Path | None) -> dict[str, Any]:
    """A report that begins with the results in `out`, if they are of this machine and these versions."""
    # In a process of its own, which gives an accelerator's memory back to the programs.
    printed = subprocess.run([sys.executable, "-c", _MACHINE], stdout=subprocess.PIPE, text=True, check=True).stdout
    report = {"machine": json.loads(printed), "quick": quick, "results": {}}
    if out is not None and out.exists():
        earlier = json.loads(out.read_text(encoding="utf-8"))
        if (earlier["machine"], earlier["quick"]) == (report["machine"], quick):
            report["results"] = earlier["results"]
    return report


def _write(report: Mapping[str, Any], path: Path) -> None:
    from castream_jax.reporting.benchmarks import benchmarks_table
    from castream_jax.runtime.atomic_files import write_atomically, write_json

    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, report)
    title = f"# Speed and memory: {report['machine']['device']}, {report['machine']['cores']} cores"
    write_atomically(path.with_suffix(".md"), "\n".join([title, "", *benchmarks_table(report), ""]))


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
