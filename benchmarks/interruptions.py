"""Interrupts a training at random moments, resumes it each time, and compares the end with a run left alone.

    python benchmarks/interruptions.py --config configs/cifar10/resnet20.py --kills 20 --signal KILL \\
        --config.data.path=DATA --config.backbone.weights=resnet20-12fca82f.th \\
        --config.train.epochs=1 --config.train.checkpoint_every=10
    python benchmarks/interruptions.py --quick

`--signal TERM` asks to stop instead, and expects status 0; `--truncate` cuts a file of the newest checkpoint in half
after each kill. Moments are uniform from the start of the process to well into the training. `--quick` trains beside a
small network on the bundled digits, and interrupts once, at the second checkpoint. Prints one JSON object, then exits
with an error unless every process ended as it should and parameters, optimiser state and logged metrics are the same to
the bit.
"""

from collections.abc import Callable
import contextlib
import json
import operator
import os
from pathlib import Path
import random
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from program import finish, new_parser, parse_known

QUICK_CONFIG = Path(__file__).parents[1] / "configs" / "digits" / "quickstart.py"
QUICK_OVERRIDES = [
    "--config.data.canvases_per_digit=1",
    "--config.data.image_size=32",
    "--config.train.epochs=1",
    "--config.train.batch_size=32",
    "--config.train.checkpoint_every=5",
]


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--config", help="of the training; fields follow as --config.FIELD=VALUE")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    parser.add_argument("--truncate", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workdir", help="folder for the two runs; by default a temporary one")
    arguments, overrides = parse_known(parser, config=str(QUICK_CONFIG), kills=1)
    if arguments.config is None:
        parser.error("--config is required without --quick")
    if arguments.quick:
        overrides = [*QUICK_OVERRIDES, *overrides]
    folder = Path(arguments.workdir or tempfile.mkdtemp(prefix="interruptions-")).resolve()
    command = [sys.executable, "-m", "castream_jax", "train", "--config", arguments.config, *overrides]
    number = signal.Signals[f"SIG{arguments.signal}"]

    def start(name: str) -> subprocess.Popen:
        with (folder / f"{name}.log").open("a") as log:
            return subprocess.Popen([*command, "--workdir", str(folder / name)], stdout=log, stderr=log)

    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    alone = start("alone")
    _wait(alone, lambda: _steps(folder / "alone"))
    started = time.monotonic() - begin  # until the first checkpoint
    if alone.wait():
        sys.exit(f"The run left alone failed: see {folder / 'alone.log'}.")
    whole = time.monotonic() - begin
    result: dict[str, Any] = {"steps": _steps(folder / "alone")[-1], "signal": arguments.signal}

    rng = random.Random(arguments.seed)
    reached, truncated, missed = [], 0, []
    for kill in range(1, arguments.kills + 1):
        process = start("stopped")
        if arguments.quick:
            _wait(process, lambda: len(steps := _steps(folder / "stopped")) > 1 and steps[-1] > max(reached, default=0))
        else:
            moment = rng.uniform(0, started + 3 * (whole - started) / arguments.kills)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moment)
        if process.poll() is not None:
            missed.append(f"run {kill} ended by itself, with status {process.returncode}: if 0, give it more epochs")
            break
        process.send_signal(number)
        status = process.wait()
        trained = (folder / "stopped" / "checkpoints").is_dir()
        if status not in ({-number} if number == signal.SIGKILL or not trained else {0, -number}):
            missed.append(f"run {kill} ended with status {status}")
            break
        steps = _steps(folder / "stopped")
        reached.append(steps[-1] if steps else 0)
        if arguments.truncate and len(steps) > 1:
            files = [path for path in _checkpoint(folder / "stopped", steps[-1]).rglob("*") if path.is_file()]
            largest = max(files, key=lambda path: path.stat().st_size)
            os.truncate(largest, largest.stat().st_size // 2)
            truncated += 1
    if not missed:
        status = start("stopped").wait()
        missed += [f"the last resumption ended with status {status}"] if status else []
    result |= {
        "kills": len(reached),
        "newest_checkpoint_at_each": reached,
        "truncated": truncated,
        "passed_over": (folder / "stopped.log").read_text().count("cannot be read"),
    }
    if not missed:
        states = [_state(_checkpoint(folder / name, result["steps"])) for name in ("alone", "stopped")]
        of_state = _differing(*map(jax.tree.leaves, states), same=np.array_equal)
        of_logs = _differing(_untimed(folder / "alone"), _untimed(folder / "stopped"), same=operator.eq)
        result |= {"same_bits": not of_state[0], "same_logs": not of_logs[0], "arrays": of_state[1]}
        for title, (differ, count) in {"arrays": of_state, "lines of the logs": of_logs}.items():
            missed += [f"{title} that differ from those of the run left alone: {differ} of {count}"] if differ else []
    finish({**result, "seconds_alone": round(whole, 1), "workdir": str(folder)}, missed)


def _wait(process: subprocess.Popen, reached: Callable[[], object]) -> None:
    """Until it has come so far, or ended."""
    while process.poll() is None and not reached():
        time.sleep(0.05)


def _differing(left: list[Any], right: list[Any], *, same: Callable[[Any, Any], bool]) -> tuple[int, int]:
    """How many of how many entries are not the same; what one has more counts."""
    longest = max(len(left), len(right))
    return longest - sum(map(same, left, right)), longest


def _steps(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit())


def _checkpoint(workdir: Path, step: int) -> Path:
    return workdir / "checkpoints" / str(step)


def _state(checkpoint: Path) -> dict:
    with ocp.StandardCheckpointer() as checkpointer:
        return {item: checkpointer.restore(checkpoint / item) for item in ("model", "training")}


def _untimed(workdir: Path) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "logs" / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


if __name__ == "__main__":
    main()
