"""Where metrics go: JSON lines and TensorBoard always, Weights & Biases by option, a trace by --profile."""

import contextlib
import json
import multiprocessing
from pathlib import Path
import sys
from types import SimpleNamespace

import pytest

from castream_jax.experiment.workdir import Workdir
from castream_jax.training import train
from castream_jax.training.logs import MetricLogs


def test_weights_and_biases_get_what_the_lines_get_and_one_run_for_all_resumptions(tiny_config, tmp_path, monkeypatch):
    opened, logged, finished = [], [], []

    def init(**fields):
        opened.append(fields)
        return SimpleNamespace(
            log=lambda values, step: logged.append({"step": step, **values}),
            finish=lambda exit_code: finished.append(exit_code),
        )

    fake = SimpleNamespace(init=init, util=SimpleNamespace(generate_id=lambda: f"id{len(opened)}"))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    config = tiny_config(train={"wandb": "project"})
    with MetricLogs(Workdir.at(tmp_path), resumed_at=0, config=config) as logs:
        logs.write(3, {"ca/loss": 2.0})
    logs = MetricLogs(Workdir.at(tmp_path), resumed_at=3, config=config)
    with contextlib.suppress(RuntimeError), logs:
        logs.write(6, {"ca/loss": 1.5})
        raise RuntimeError
    lines = [json.loads(line) for line in (tmp_path / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert logged == lines == [{"step": 3, "ca/loss": 2.0}, {"step": 6, "ca/loss": 1.5}]
    assert [run["id"] for run in opened] == ["id0", "id0"]
    assert opened[0]["project"] == "project"
    assert opened[0]["config"]["train"]["batch_size"] == 120
    assert finished == [0, 1]


def test_without_the_package_the_option_is_refused(tiny_config, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="needs the package wandb: pip install wandb, or leave it empty"):
        MetricLogs(Workdir.at(tmp_path), resumed_at=0, config=tiny_config(train={"wandb": "project"}))


def test_without_semaphores_there_are_no_events_and_the_lines_are_written(tiny_config, tmp_path: Path, monkeypatch):
    """As where /dev/shm is not to be written."""

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(multiprocessing, "Queue", refuse)
    with pytest.warns(UserWarning, match=r"^TensorBoard's events are not written: .* \(Permission denied;"):
        logs = MetricLogs(Workdir.at(tmp_path), resumed_at=0, config=tiny_config())
    with logs:
        logs.write(3, {"ca/loss": 2.0})
    assert json.loads((tmp_path / "logs" / "metrics.jsonl").read_text()) == {"step": 3, "ca/loss": 2.0}


@pytest.mark.slow
def test_a_profile_holds_steps_10_to_20(tiny_config, tmp_path: Path):
    workdir = train(tiny_config(train={"batch_size": 40}), tmp_path / "run", profile=True)
    (trace,) = (workdir / "logs" / "plugins" / "profile").glob("*/*.xplane.pb")
    content = trace.read_bytes()
    assert b"train" in content
    workdir = train(tiny_config(train={"batch_size": 40}), tmp_path / "other")
    assert not (workdir / "logs" / "plugins").exists()
