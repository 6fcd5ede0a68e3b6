"""Interrupts a training at random moments, resumes it each time, and compares the end with a run left alone.

    python benchmarks/interruptions.py --config configs/cifar10/resnet20.py --kills 20 --signal KILL \\
        --config.data.path=DATA --config.backbone.weights=resnet20-12fca82f.th \\
        --config.train.epochs=1 --config.train.checkpoint_every=10

`--signal TERM` asks to stop instead, and expects status 0; `--truncate` cuts a file of the newest checkpoint in half
after each kill. Moments are uniform from the start of the process to well into the training. Prints one JSON object;
exits with 1 unless parameters, optimiser state and logged metrics are the same to the bit.
"""

import argparse
import json
import os
from pathlib import Path
import random
import signal
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
import orbax.checkpoint as ocp


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    parser.add_argument("--truncate", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workdir", help="folder for the two runs; by default a temporary one")
    arguments, overrides = parser.parse_known_args()
    folder = Path(arguments.workdir or tempfile.mkdtemp(prefix="interruptions-")).resolve()
    command = [sys.executable, "-m", "castream_jax", "train", "--config", arguments.config, *overrides]
    number = signal.Signals[f"SIG{arguments.signal}"]

    def start(name: str) -> subprocess.Popen:
        with (folder / f"{name}.log").open("a") as log:
            return subprocess.Popen([*command, "--workdir", str(folder / name)], stdout=log, stderr=log)

    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    alone = start("alone")
    while alone.poll() is None and not _steps(folder / "alone"):
        time.sleep(0.05)
    started = time.monotonic() - begin  # until the first checkpoint
    if alone.wait():
        raise SystemExit(f"the run left alone failed: see {folder / 'alone.log'}")
    whole = time.monotonic() - begin
    last = _steps(folder / "alone")[-1]

    rng = random.Random(arguments.seed)
    reached, truncated = [], 0
    for _ in range(arguments.kills):
        process = start("stopped")
        try:
            status = process.wait(rng.uniform(0, started + 3 * (whole - started) / arguments.kills))
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            status = process.wait()
            trained = any(path.is_dir() for path in (folder / "stopped").glob("checkpoints"))
            expected = {-number} if number == signal.SIGKILL or not trained else {0, -number}
            assert status in expected, f"status {status}: see {folder / 'stopped.log'}"
        else:
            raise SystemExit(f"the run ended with status {status} after {len(reached)} kills: give it more epochs")
        steps = _steps(folder / "stopped")
        reached.append(steps[-1] if steps else 0)
        if arguments.truncate and len(steps) > 1:
            files = [
                path for path in (folder / "stopped" / "checkpoints" / str(steps[-1])).rglob("*") if path.is_file()
            ]
            largest = max(files, key=lambda path: path.stat().st_size)
            os.truncate(largest, largest.stat().st_size // 2)
            truncated += 1
    if start("stopped").wait():
        raise SystemExit(f"the last resumption failed: see {folder / 'stopped.log'}")

    states = [_state(folder / name / "checkpoints" / str(last)) for name in ("alone", "stopped")]
    same_state = all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, states), strict=True))
    same_logs = _untimed(folder / "alone") == _untimed(folder / "stopped")
    result = {
        "steps": last,
        "signal": arguments.signal,
        "kills": len(reached),
        "newest_checkpoint_at_each": reached,
        "truncated": truncated,
        "passed_over": (folder / "stopped.log").read_text().count("cannot be read"),
        "same_bits": same_state,
        "same_logs": same_logs,
        "arrays": len(jax.tree.leaves(states[0])),
        "seconds_alone": round(whole, 1),
        "workdir": str(folder),
    }
    print(json.dumps(result))
    return 0 if same_state and same_logs else 1


def _steps(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit())


def _state(checkpoint: Path) -> dict:
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(checkpoint / "state")


def _untimed(workdir: Path) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "logs" / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


if __name__ == "__main__":
    sys.exit(main())
