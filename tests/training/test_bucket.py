"""A workdir in a bucket: trained, killed within a checkpoint, continued, evaluated and exported as on a disk."""

import json
import os
from pathlib import Path
import signal
import socket
import subprocess
import sys

from etils import epath
import jax
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.cli import main
from castream_jax.evaluation import evaluate
from castream_jax.experiment.restore import restore_model
from castream_jax.experiment.workdir import Workdir
from castream_jax.runtime import bucket_folder
from castream_jax.runtime.bucket import file_system
from castream_jax.training import train

# A training that dies while it sends a checkpoint: some of its files are there, the marker is not.
DIES = """
import os, signal, sys
from castream_jax.cli import main
from castream_jax.runtime import bucket_folder

put = bucket_folder._put

def put_or_die(copy, path, name):
    if name.startswith("checkpoints/10/training/d/"):
        os.kill(os.getpid(), signal.SIGKILL)
    put(copy, path, name)

bucket_folder._put = put_or_die
bucket_folder._AT_ONCE = 1
main(["train", "--config", sys.argv[1], "--workdir", sys.argv[2]])
"""


def names(address: str) -> set[str]:
    files = file_system(address)
    root = files._strip_protocol(address) + "/"
    return {name.removeprefix(root) for name in files.find(address)}


def steps(address: str) -> set[int]:
    """Of the whole checkpoints."""
    found = (name.split("/") for name in names(f"{address}/checkpoints"))
    return {int(step) for step, *rest in found if rest == ["checksums.json"]}


def losses(lines: str) -> np.ndarray:
    entries = [json.loads(line) for line in lines.splitlines()]
    assert [entry["step"] for entry in entries] == [4, 8, 11]
    return np.array([entry["ca/loss"] for entry in entries])


def assert_same_parameters(first: castream.Model, second: castream.Model) -> None:
    leaves = [jax.tree.leaves(castream.torch_stream_state_dict(model.heads["ca"])) for model in (first, second)]
    for one, other in zip(*leaves, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.system
def test_a_training_killed_in_the_middle_of_a_checkpoint_continues_as_on_a_disk(
    bucket: str, tmp_path: Path, tiny_config, trained_workdir: Path, capfd, monkeypatch
):
    address, config = f"{bucket}/runs/one", tiny_config()
    (tmp_path / "config.json").write_text(config.to_json())
    command = [sys.executable, "-c", DIES, str(tmp_path / "config.json"), address]
    killed = subprocess.run(command, env={**os.environ, "JAX_NUM_CPU_DEVICES": "4"}, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    there = names(address)
    assert steps(address) == {5}
    assert any(name.startswith("checkpoints/10/") for name in there)
    assert ".training.lock" in there
    lines = file_system(address).cat_file(f"{address}/logs/metrics.jsonl").decode().splitlines()
    assert [json.loads(line)["step"] for line in lines[:2]] == [4, 8], "metrics are sent before a checkpoint"

    # --- what is not whole is not there for who reads, and no hindrance for who continues ---
    restored = restore_model(config, address)
    capfd.readouterr()
    trained = train(config, address)
    said = capfd.readouterr().err
    assert f"resumed at step 5 of 11 from {address}/checkpoints" in said
    assert (trained, str(trained)) == (epath.Path(address), address)
    assert steps(address) == {10, 11}
    assert {"config.json", "classes.json", "origins.json", "weights/resnet8.safetensors"} <= names(address)
    assert ".training.lock" not in names(address)
    on_disk = Workdir.at(trained_workdir)
    metrics = file_system(address).cat_file(f"{address}/logs/metrics.jsonl").decode()
    np.testing.assert_allclose(losses(metrics), losses(on_disk.metrics.read_text()), rtol=0, atol=1e-5)
    continued = restore_model(config, address)
    assert_same_parameters(continued, restore_model(config, trained_workdir))
    with pytest.raises(AssertionError):
        assert_same_parameters(continued, restored)

    # --- evaluation and report, as another process would: nothing is here yet ---
    monkeypatch.setattr(bucket_folder, "_copies", {})
    summary, expected = evaluate(config, address), evaluate(config, trained_workdir)
    for found, wanted in zip(summary["metrics"], expected["metrics"], strict=True):
        assert {key: found[key] for key in ("head", "method")} == {key: wanted[key] for key in ("head", "method")}
        assert found["AD"] == pytest.approx(wanted["AD"], abs=1e-4)
    config.evaluation.methods = ("gradcam",)
    evaluate(config, address)
    earlier = names(f"{address}/evaluation/earlier/{summary['run']}")
    assert {"summary.json", "run.json", "rows/part-00000.parquet", "predictions/part-00000.parquet"} <= earlier
    config.evaluation.methods = tiny_config().evaluation.methods
    assert evaluate(config, address)["run"] == summary["run"]
    assert f"earlier/{summary['run']}/run.json" not in names(f"{address}/evaluation")
    capfd.readouterr()
    assert main(["report", "--workdir", address]) == 0
    assert capfd.readouterr().out == f"{address}/report/index.html\n"
    page = file_system(address).cat_file(f"{address}/report/index.html").decode()
    assert "/tmp" not in page

    # --- export ---
    export = f"{bucket}/exports/one"
    assert main(["export", "--workdir", address, "--to", "pretrained", "--out", export]) == 0
    assert capfd.readouterr().out == f"{export}\n"
    monkeypatch.setattr(bucket_folder, "_copies", {})
    assert_same_parameters(castream.load_pretrained(export), continued)
    assert main(["export", "--workdir", address, "--to", "safetensors", "--out", export]) == 0
    assert f"{export} held an earlier export, which this one replaced" in capfd.readouterr().err
    assert names(export) == {"model.json", "README.md", "model.safetensors"}
    assert_same_parameters(castream.load_pretrained(export), continued)
    file_system(export).rm_file(f"{export}/model.json")  # as it is while one is written, or one was killed
    with pytest.raises(FileNotFoundError, match=rf"{export} holds no model: there is no model\.json"):
        castream.load_pretrained(export)
    assert main(["export", "--workdir", address, "--to", "safetensors", "--out", export]) == 0
    with pytest.raises(FileNotFoundError, match=rf"{address} is a workdir, and no export: .* --workdir {address} --to"):
        castream.load_pretrained(address)


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_sent_ends_the_training_and_the_one_before_stays(
    bucket: str, tiny_config, monkeypatch
):
    address, put = f"{bucket}/run", bucket_folder._put

    def refuse(copy, path, name):
        if name.startswith("checkpoints/10/"):
            raise ConnectionError("the network is gone")
        put(copy, path, name)

    monkeypatch.setattr(bucket_folder, "_put", refuse)
    sentence = (
        rf"^Checkpoint 10 could not be written to {address}/checkpoints \(the network is gone\); checkpoint 5 is "
    )
    with pytest.raises(OSError, match=sentence + r"intact: the same command continues when it can be\."):
        train(tiny_config(), address)
    assert steps(address) == {5}
    monkeypatch.setattr(bucket_folder, "_put", put)
    train(tiny_config(), address)
    assert steps(address) == {10, 11}


@pytest.mark.system
def test_processes_that_share_no_disk_train_and_evaluate_together(
    bucket: str, tmp_path: Path, tiny_config, trained_workdir: Path
):
    address, config = f"{bucket}/run", tiny_config(evaluation={"images_per_part": 40})
    (tmp_path / "config.json").write_text(config.to_json())

    def together(*command: str) -> list[str]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        processes = []
        for i in range(2):
            (tmp_path / str(i)).mkdir(exist_ok=True)
            group = ["--coordinator", f"127.0.0.1:{port}", "--num-processes", "2", "--process-id", str(i)]
            environ = {**os.environ, "JAX_NUM_CPU_DEVICES": "2", "TMPDIR": str(tmp_path / str(i))}
            arguments = [sys.executable, "-m", "castream_jax", *command, *group]
            processes.append(subprocess.Popen(arguments, env=environ, stderr=subprocess.PIPE, text=True))
        try:
            said = [process.communicate(timeout=200)[1] for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [0, 0], said
        assert not list(tmp_path.glob("*/castream-*")), "a scratch copy stays"
        return said

    together("train", "--config", str(tmp_path / "config.json"), "--workdir", address)
    metrics = file_system(address).cat_file(f"{address}/logs/metrics.jsonl").decode()
    on_disk = Workdir.at(trained_workdir)
    np.testing.assert_allclose(losses(metrics), losses(on_disk.metrics.read_text()), rtol=0, atol=1e-5)
    assert_same_parameters(restore_model(config, address), restore_model(config, trained_workdir))
    file_system(address).rm(f"{address}/checkpoints/11", recursive=True)
    assert "resumed at step 10 of 11" in together("train", "--workdir", address)[0]
    together("evaluate", "--workdir", address)
    parts = {name for name in names(f"{address}/evaluation") if name.startswith("predictions/")}
    assert len(parts) > 4
    assert Workdir.at(address).read_summary()["accuracy_images"] == evaluate(config, on_disk)["accuracy_images"]
