"""Two processes train what one trains, launched as a user would."""

import os
from pathlib import Path
import socket
import subprocess
import sys

import chex
from flax import nnx
import pytest

from castream_jax.config import open_config, override
from castream_jax.training.restore import restore_model

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "digits" / "quickstart.py"


@pytest.mark.slow
def test_two_processes_train_the_same_stream(tmp_path: Path, resnet8_weights: Path):
    # 1e-5 absolute after 11 steps: each process sums its own images first.
    overrides = [
        "--config.data.image_size=32",
        "--config.data.canvases_per_digit=1",
        f"--config.backbone.weights={resnet8_weights}",
        "--config.train.epochs=1",
        "--config.train.batch_size=128",
        "--config.train.log_every=4",
        "--config.evaluation.max_images=60",
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment["PYTHONPATH"] = str(ROOT)
    for processes in (1, 2):
        subprocess.run(
            [ROOT / "launch" / "local.sh", CONFIG, tmp_path / str(processes), *overrides],
            env={**environment, "PROCESSES": str(processes), "PORT": str(port)},
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=240,
        )
    config = override(open_config(CONFIG), overrides)
    one, two = (
        nnx.to_pure_dict(nnx.state(restore_model(config, tmp_path / str(processes)).heads["ca"]))
        for processes in (1, 2)
    )
    chex.assert_trees_all_close(one, two, rtol=0, atol=1e-5)
    assert len((tmp_path / "2" / "logs" / "metrics.jsonl").read_text().splitlines()) == 3
    assert (tmp_path / "2" / "report" / "index.html").exists()
