"""The whole training: resumed after `kill -9` to the same bits, the same on any number of devices, safe from NaN."""

# pyright: reportAttributeAccessIssue=false

import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import chex
from flax import nnx
import jax
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.backbones import fingerprint, save_torch_weights
from castream_jax.experiment.restore import restore_model
from castream_jax.runtime.mesh import data_mesh
from castream_jax.training import train


def stream_params(config, workdir: Path):
    return nnx.to_pure_dict(nnx.state(restore_model(config, workdir).heads["ca"]))


def log_lines(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "logs" / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_logs_checkpoints_and_an_untouched_trunk(tiny_config, trained_once: Path, resnet8_weights: Path):
    steps = [line["step"] for line in log_lines(trained_once)]
    assert steps == [4, 8, 11]  # 1438 digits // 120
    assert {"epoch", "learning_rate", "ca/loss", "ca/accuracy", "images_per_second"} < log_lines(trained_once)[0].keys()
    assert list((trained_once / "logs").glob("events.out.tfevents.*"))
    assert json.loads((trained_once / "config.json").read_text())["backbone"]["name"] == "cifar_resnet8"
    restored = restore_model(tiny_config(), trained_once)
    assert fingerprint(restored.backbone) == fingerprint(castream.load_backbone("cifar_resnet8", resnet8_weights))
    fresh = castream.CrossAttentionStream(restored.backbone.stage_dims, rngs=nnx.Rngs(0))
    assert not np.allclose(restored.heads["ca"].cls_token[...], fresh.cls_token[...])


@pytest.mark.slow
def test_several_devices_train_the_same_stream(tiny_config, trained_once: Path, tmp_path: Path):
    # 1e-5 absolute after 11 steps: each device sums its own images first, so sums run in another order.
    config = tiny_config()
    alone = train(config, tmp_path / "run", mesh=data_mesh(jax.devices()[:1]))
    chex.assert_trees_all_close(stream_params(config, alone), stream_params(config, trained_once), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_training_goes_on_with_another_number_of_devices(tiny_config, trained_once, tmp_path: Path, monkeypatch):
    config = tiny_config(train={"log_every": 2})  # line 6 is written, then lost with the steps after checkpoint 5
    whole = stream_params(config, trained_once)
    stop_after(monkeypatch, 7)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "parts", mesh=data_mesh(jax.devices()[:4]))
    monkeypatch.undo()
    parts = stream_params(config, train(config, tmp_path / "parts", mesh=data_mesh(jax.devices()[:1])))
    chex.assert_trees_all_close(parts, whole, rtol=0, atol=1e-5)
    assert [line["step"] for line in log_lines(tmp_path / "parts")] == [2, 4, 6, 8, 10, 11]


def stop_after(monkeypatch, step: int) -> None:
    from castream_jax.training import loop

    calls = iter(range(10**6))
    original = loop.shard_batch

    def stopping(*arguments):
        if next(calls) == step:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(loop, "shard_batch", stopping)


@pytest.mark.system
def test_stopped_in_every_way_and_resumed_ends_in_the_same_bits(tmp_path: Path, resnet8_weights: Path):
    # benchmarks/interruptions.py does the same twenty times at random moments.
    overrides = [
        "--config.data.image_size=32",
        "--config.data.canvases_per_digit=1",
        f"--config.backbone.weights={resnet8_weights}",
        "--config.train.epochs=4",
        "--config.train.batch_size=32",
        "--config.train.log_every=10",
        "--config.train.checkpoint_every=10",
    ]
    root = Path(__file__).parents[2]
    config_file = root / "configs" / "digits" / "quickstart.py"
    checkpoints = tmp_path / "stopped" / "checkpoints"

    def start(workdir: Path) -> subprocess.Popen:
        command = ["train", "--config", str(config_file), "--workdir", str(workdir), *overrides]
        return subprocess.Popen(
            [sys.executable, "-m", "castream_jax", *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=root,
        )

    def newest() -> int:
        return max((int(path.name) for path in checkpoints.glob("*") if path.name.isdigit()), default=0)

    def stop_after(step: int, number: signal.Signals) -> tuple[int, str]:
        process = start(tmp_path / "stopped")
        deadline = time.monotonic() + 200
        while newest() < step:
            assert process.poll() is None, "training ended before it could be stopped"
            assert time.monotonic() < deadline, "no checkpoint appeared"
            time.sleep(0.02)
        os.kill(process.pid, number)
        said = process.communicate()[1].decode()
        return process.returncode, said

    assert stop_after(30, signal.SIGKILL)[0] == -signal.SIGKILL
    status, said = stop_after(70, signal.SIGTERM)
    assert status == 0
    assert "resumed at step" in said
    assert "SIGTERM: saved at step" in said
    assert stop_after(110, signal.SIGKILL)[0] == -signal.SIGKILL
    damaged = newest()
    (largest,) = sorted(checkpoints.glob(f"{damaged}/training/**/d/*"), key=lambda path: path.stat().st_size)[-1:]
    os.truncate(largest, largest.stat().st_size // 2)
    last = start(tmp_path / "stopped")
    assert f"checkpoint {damaged} cannot be read" in last.communicate()[1].decode()
    assert last.returncode == 0
    alone = start(tmp_path / "alone")
    alone.communicate()
    assert alone.returncode == 0

    from castream_jax.experiment.config import open_config, override

    config = override(open_config(config_file), overrides)
    chex.assert_trees_all_equal(stream_params(config, tmp_path / "stopped"), stream_params(config, tmp_path / "alone"))
    untimed = [
        [{key: value for key, value in line.items() if key != "images_per_second"} for line in log_lines(workdir)]
        for workdir in (tmp_path / "stopped", tmp_path / "alone")
    ]
    assert untimed[0] == untimed[1]


@pytest.mark.slow
def test_divergence_stops_with_a_sentence_and_keeps_the_last_checkpoint(tiny_config, tmp_path: Path, monkeypatch):
    config = tiny_config(optimizer={"learning_rate": 1e30})
    with pytest.raises(FloatingPointError, match=r"is nan at step 4.*lower config.optimizer.learning_rate"):
        train(config, tmp_path / "run")
    # The checkpoint falls before the next report: it must look for itself.
    config = tiny_config(optimizer={"learning_rate": 1e30}, train={"log_every": 100, "checkpoint_every": 5})
    with pytest.raises(FloatingPointError, match="A parameter is not finite at step 5"):
        train(config, tmp_path / "other")
    assert not [path for path in (tmp_path / "other" / "checkpoints").iterdir() if path.name.isdigit()]


def test_workdir_of_another_config_is_refused_and_kept(tiny_config, trained_workdir: Path):
    before = (trained_workdir / "config.json").read_text()
    other = tiny_config(optimizer={"learning_rate": 0.2}, train={"epochs": 2})
    with pytest.raises(
        ValueError, match=r"optimizer.learning_rate \(0.05 there, 0.2 here\), train.epochs \(1 there, 2"
    ):
        train(other, trained_workdir)
    assert (trained_workdir / "config.json").read_text() == before


def test_streams_of_another_trunk_are_refused(tiny_config, trained_once: Path, tmp_path: Path):
    save_torch_weights(castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(8)), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="were trained on another backbone"):
        restore_model(tiny_config(backbone={"weights": str(tmp_path / "other.safetensors")}), trained_once)


def test_nothing_is_written_for_a_training_that_cannot_start(tiny_config, tmp_path: Path):
    with pytest.raises(ValueError, match="A batch of 6 images does not split over 4 devices: use 4 or 8"):
        train(tiny_config(train={"batch_size": 6}), tmp_path / "run")
    with pytest.raises(ValueError, match="The data has 10 classes and the backbone 7"):
        train(tiny_config(backbone={"num_classes": 7}), tmp_path / "run")
    with pytest.raises(ValueError, match=r"config\.backbone\.weights is empty"):
        train(tiny_config(backbone={"weights": ""}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_workdir_without_training_is_told_apart(tiny_config, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="holds no experiment: run `castream train"):
        restore_model(tiny_config(), tmp_path / "nothing")


@pytest.mark.slow
def test_a_pretrained_backbone_is_exported_and_loads(tiny_config, tmp_path: Path):
    config = tiny_config(train={"target": "backbone"}, backbone={"weights": ""})
    workdir = train(config, tmp_path / "run")
    backbone = castream.load_backbone("cifar_resnet8", workdir / "export" / "backbone.safetensors")
    initial = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    assert not np.allclose(backbone.bn1.mean[...], initial.bn1.mean[...])
    assert not np.allclose(backbone.linear.kernel[...], initial.linear.kernel[...])


def test_restoring_leaves_the_workdir_as_it_is(tiny_config, trained_workdir: Path):
    workdir = trained_workdir
    being_written = workdir / "checkpoints" / "99.orbax-checkpoint-tmp-1"
    being_written.mkdir()
    before = sorted(workdir.rglob("*"))
    restore_model(tiny_config(), workdir)
    assert sorted(workdir.rglob("*")) == before
    for path in sorted((workdir / "checkpoints").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (workdir / "checkpoints").rmdir()
    with pytest.raises(FileNotFoundError, match="There is no checkpoint in"):
        restore_model(tiny_config(), workdir)
