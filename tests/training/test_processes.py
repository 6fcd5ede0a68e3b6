"""Several processes and any number of devices train what one device trains, launched as a user would."""

import json
import os
from pathlib import Path
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from castream_jax.experiment.config import open_config, override
from castream_jax.experiment.restore import restore_model
from castream_jax.runtime.processes import PEER_LOST

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "digits" / "quickstart.py"


@pytest.fixture
def overrides(resnet8_weights: Path) -> list[str]:
    """A training of 56 steps."""
    return [
        "--config.data.image_size=32",
        "--config.data.canvases_per_digit=1",
        f"--config.backbone.weights={resnet8_weights}",
        "--config.train.epochs=5",
        "--config.train.batch_size=128",
        "--config.train.log_every=1",
        "--config.train.checkpoint_every=10",
        "--config.evaluation.max_images=40",
        "--config.evaluation.batch_size=40",
        "--config.evaluation.baselines=False",
        "--config.evaluation.sanity_images=0",
    ]


@pytest.fixture
def environment() -> dict[str, str]:
    """For the scripts: this Python first on the path, and a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "PORT": str(port)}


def losses(workdir: Path) -> np.ndarray:
    lines = [json.loads(line) for line in (workdir / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return np.array([line["ca/loss"] for line in lines])


def wait_for_checkpoint(workdir: Path, step: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 200
    while not any(path.name.isdigit() and int(path.name) >= step for path in (workdir / "checkpoints").glob("*")):
        assert process.poll() is None, "training ended too early"
        assert time.monotonic() < deadline, "no checkpoint appeared"
        time.sleep(0.02)


@pytest.mark.system
def test_processes_and_devices_train_the_same_stream(tmp_path: Path, overrides: list[str], environment: dict[str, str]):
    def run(*command: str | Path, **variables: str) -> None:
        environ = {**environment, **variables}
        subprocess.run([*command, *overrides], env=environ, check=True, stdout=subprocess.DEVNULL, timeout=240)

    def launch(name: str, **variables: str) -> None:
        run(ROOT / "launch" / "local.sh", CONFIG, tmp_path / name, **variables)

    training = [sys.executable, "-m", "castream_jax", "train", "--config", CONFIG, "--workdir"]
    run(*training, tmp_path / "1", JAX_NUM_CPU_DEVICES="1")
    launch("2x2", PROCESSES="2", DEVICES="2")
    # Begun on 4 devices, killed, and ended, with its evaluation, on 8.
    process = subprocess.Popen(
        [*training, tmp_path / "4, 8", *overrides],
        env={**environment, "JAX_NUM_CPU_DEVICES": "4"},
        stdout=subprocess.DEVNULL,
    )
    wait_for_checkpoint(tmp_path / "4, 8", 30, process)
    process.kill()
    process.wait()
    config = override(open_config(CONFIG), overrides)
    restore_model(config, tmp_path / "4, 8")  # on the 4 devices of the tests
    launch("4, 8", DEVICES="8")
    # 1e-5 absolute over 56 steps: each device sums its own images first.
    alone = losses(tmp_path / "1")
    assert len(alone) == 56
    np.testing.assert_allclose(losses(tmp_path / "2x2"), alone, rtol=0, atol=1e-5)
    np.testing.assert_allclose(losses(tmp_path / "4, 8"), alone, rtol=0, atol=1e-5)
    assert (tmp_path / "2x2" / "report" / "index.html").exists()


@pytest.mark.system
@pytest.mark.parametrize("victim", [0, 1])
def test_a_dead_process_ends_the_other_with_a_sentence(tmp_path, overrides, environment, victim: int):
    workdir = tmp_path / "run"
    common = [sys.executable, "-m", "castream_jax", "train", "--config", CONFIG, "--workdir", workdir, *overrides]
    common += ["--config.train.epochs=500", "--coordinator", f"127.0.0.1:{environment['PORT']}", "--num-processes", "2"]
    processes = [
        subprocess.Popen(
            [*common, "--process-id", str(i)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for i in range(2)
    ]
    wait_for_checkpoint(workdir, 20, processes[victim])
    processes[victim].send_signal(signal.SIGKILL)
    begin = time.monotonic()
    said = processes[1 - victim].communicate(timeout=100)[1].decode()
    assert time.monotonic() - begin < 90
    if victim == 0 and processes[1].returncode == -signal.SIGABRT:
        # Process 0 is also where heartbeats meet: JAX may miss it before the collective fails, and aborts.
        assert "another task died" in said
    else:
        assert processes[1 - victim].returncode == PEER_LOST, said[-2000:]
        assert f"castream: process {1 - victim} of 2 ends because another one has died or cannot be reached" in said
    processes[victim].communicate()


@pytest.mark.system
def test_sigterm_to_one_process_saves_and_ends_both(tmp_path: Path, overrides: list[str], environment: dict[str, str]):
    workdir = tmp_path / "run"
    launcher = subprocess.Popen(
        [ROOT / "launch" / "local.sh", CONFIG, workdir, *overrides, "--config.train.epochs=500"],
        env={**environment, "PROCESSES": "2"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    wait_for_checkpoint(workdir, 10, launcher)
    launcher.send_signal(signal.SIGTERM)
    said = launcher.communicate(timeout=100)[1].decode()
    assert launcher.returncode == 0, said[-2000:]
    assert said.count("SIGTERM: saved at step") == 1
    step = said.split("SIGTERM: saved at step ")[1].split()[0]
    assert (workdir / "checkpoints" / step.replace(",", "")).is_dir()
    assert not (workdir / "report").exists()  # nothing is evaluated before it is trained
