"""Checkpoints that are damaged, cut short or in the way: training goes on from what is whole, and says so."""

import json
import os
from pathlib import Path
import shutil
import signal
import zlib

import chex
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from castream_jax.experiment.checkpoint import Checkpoints
from castream_jax.experiment.model_parts import model_parts
from castream_jax.experiment.restore import restore_model
from castream_jax.training import loop, train
from castream_jax.training.optimizer import make_optimizer
from castream_jax.training.step import initial_state


class Position:
    """Stands for a data iterator: where it is."""

    def __init__(self, batches: int = 0):
        self.batches = batches

    def get_state(self) -> dict[str, int]:
        return {"next_index": self.batches}

    def set_state(self, state: dict[str, int]) -> None:
        self.batches = state["next_index"]


def state_of(step: int) -> dict:
    params = {"heads": {"ca": jnp.arange(2000, dtype=jnp.float32) * step}}
    return {"params": params, "optimizer": {"ca": jnp.full(7, step, jnp.float32)}, "step": jnp.asarray(step)}


def stream_params(config, workdir: Path):
    return nnx.to_pure_dict(nnx.state(restore_model(config, workdir).heads["ca"]))


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A workdir with checkpoints 10, 20 and 30, the first of them the best."""
    with Checkpoints(tmp_path, fingerprint="t", config='{"seed": 3}') as checkpoints:
        for step, score in ((10, 0.9), (20, 0.5), (30, None)):
            checkpoints.save(step, state_of(step), Position(step), score)
        checkpoints.wait()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["10", "20", "30"]
    return tmp_path


def test_the_newest_and_the_best_are_kept(three: Path):
    with Checkpoints(three, fingerprint="t") as checkpoints:
        checkpoints.save(40, state_of(40), Position(40), 0.7)
        checkpoints.wait()
        assert checkpoints.steps == [10, 30, 40]
        assert (checkpoints.latest_step, checkpoints.best_step) == (40, 10)
        position = Position()
        step, state = checkpoints.restore(state_of(0), position)
        assert (step, position.batches) == (40, 40)
        chex.assert_trees_all_equal(state, state_of(40))
        step, state = checkpoints.restore(state_of(0), which="best")
        assert step == 10
        chex.assert_trees_all_equal(state, state_of(10))
        checkpoints.save(50, state_of(50), Position(50), 0.9)  # the newest of equals is the best
        checkpoints.wait()
        assert checkpoints.steps == [40, 50]
    about = json.loads((three / "checkpoints" / "50" / "about" / "metadata").read_text())
    assert {"trunk": "t", "config": {}, "iterator": {"next_index": 50}, "score": 0.9}.items() <= about.items()


def test_a_model_is_restored_without_its_training(three: Path):
    wanted = {"params": state_of(0)["params"]}
    shutil.rmtree(three / "checkpoints" / "30" / "training")
    with Checkpoints(three, fingerprint="t", read_only=True) as checkpoints:
        assert checkpoints.restore(wanted)[0] == 20  # a checkpoint is whole or damaged
    checksums = three / "checkpoints" / "30" / "checksums.json"
    kept = {name: sum_ for name, sum_ in json.loads(checksums.read_text()).items() if not name.startswith("training")}
    checksums.write_text(json.dumps(kept))
    with Checkpoints(three, fingerprint="t", read_only=True) as checkpoints:
        step, state = checkpoints.restore(wanted)
    assert step == 30
    chex.assert_trees_all_equal(state, {"params": state_of(30)["params"]})


def write_first_layout(workdir: Path, step: int, state: dict, about: dict) -> None:
    """A checkpoint of the first layout: one item for model and training."""
    folder = workdir / "checkpoints" / str(step)
    items = {"state": ocp.args.StandardSave(state), "about": ocp.args.JsonSave(about)}
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(folder, args=ocp.args.Composite(**items))
    files = [path for item in items for path in (folder / item).rglob("*") if path.is_file()]
    checksums = {str(path.relative_to(folder)): zlib.crc32(path.read_bytes()) for path in files}
    (folder / "checksums.json").write_text(json.dumps(checksums))


def test_checkpoints_of_the_first_layout_are_read(tmp_path: Path):
    state = {**state_of(10), "stats": {}}
    about = {"trunk": "t", "config": {}, "iterator": {"next_index": 10}, "score": 0.5}
    write_first_layout(tmp_path, 10, state, about)
    with Checkpoints(tmp_path, fingerprint="t") as checkpoints:
        position = Position()
        step, restored = checkpoints.restore({**state_of(0), "stats": {}}, position)
        assert (step, position.batches, checkpoints.best_step) == (10, 10, 10)
        chex.assert_trees_all_equal(restored, state)
        model = {"params": state["params"], "stats": {}}
        chex.assert_trees_all_equal(checkpoints.restore(jax.tree.map(jnp.zeros_like, model))[1], model)
        more = {"params": {"heads": {**state["params"]["heads"], "other": jnp.zeros(3)}}}
        with pytest.raises(ValueError, match=r"none can be read .it lacks arrays of this model.: move the folder away"):
            checkpoints.restore(more)
        checkpoints.save(20, state_of(20), Position(20))
        checkpoints.wait()
        assert checkpoints.restore(state_of(0))[0] == 20
        assert checkpoints.steps == [10, 20]


@pytest.mark.slow
def test_a_training_of_the_first_layout_is_restored_and_goes_on(tiny_config, trained_workdir: Path, tmp_path: Path):
    config, checkpoints = tiny_config(), trained_workdir / "checkpoints"
    whole = stream_params(config, trained_workdir)
    model = restore_model(config, trained_workdir)
    optimizer, _ = make_optimizer(config, steps_per_epoch=1, steps=1)
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, initial_state(model_parts(model, "streams"), optimizer))
    for step in (11, 10):
        with Checkpoints(trained_workdir, fingerprint=_fingerprint(trained_workdir)) as opened:
            read, state = opened.restore(abstract)
        assert read == step
        about = json.loads((checkpoints / str(step) / "about" / "metadata").read_text())
        shutil.rmtree(checkpoints / str(step))
        write_first_layout(tmp_path / "old", step, state, about)
    shutil.copytree(tmp_path / "old" / "checkpoints", checkpoints, dirs_exist_ok=True)
    chex.assert_trees_all_equal(stream_params(config, trained_workdir), whole)
    shutil.rmtree(checkpoints / "11")
    chex.assert_trees_all_equal(stream_params(config, train(config, trained_workdir)), whole)
    assert [path.parent.name for path in checkpoints.glob("*/model")] == ["11"]


def damages(checkpoint: Path):
    """Every file of a checkpoint cut to half, emptied, removed, and with one bit turned."""
    for file in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
        content = file.read_bytes()
        turned = bytearray(content)
        turned[len(turned) // 2] ^= 16
        for kind, damaged in (("half", content[: len(content) // 2]), ("empty", b""), ("bit", bytes(turned))):
            yield f"{file.relative_to(checkpoint)} {kind}", file, damaged
        yield f"{file.relative_to(checkpoint)} removed", file, None


def test_a_damaged_newest_checkpoint_never_gives_other_numbers(three: Path):
    newest, copy = three / "checkpoints" / "30", three / "copy"
    shutil.copytree(newest, copy)
    passed_over = []
    for name, file, content in list(damages(newest)):
        file.unlink() if content is None else file.write_bytes(content)
        said: list[str] = []
        with Checkpoints(three, fingerprint="t", say=said.append) as checkpoints:
            position = Position()
            step, state = checkpoints.restore(state_of(0), position)
        # Orbax's own notes on the whole checkpoint are not needed: then it is 30 to the bit, else 20, said aloud.
        chex.assert_trees_all_equal(state, state_of(step))
        assert position.batches == step
        if step == 20:
            passed_over.append(name)
            assert len(said) == 1
            assert said[0].startswith("checkpoint 30 cannot be read (")
            assert said[0].endswith(f"passed over for checkpoint 20 and moved to {three / 'damaged-checkpoints'}")
            assert not newest.exists()
            shutil.rmtree(three / "damaged-checkpoints")
        else:
            assert (step, said) == (30, [])
            assert name.startswith(("_CHECKPOINT_METADATA", "commit_success"))
        shutil.rmtree(newest, ignore_errors=True)
        shutil.copytree(copy, newest)
    assert {
        "about/metadata bit",
        "checksums.json half",
        "model/manifest.ocdbt removed",
        "training/manifest.ocdbt removed",
    } < set(passed_over)


def test_without_any_whole_checkpoint_nothing_is_moved(three: Path):
    for step in (10, 20, 30):
        (three / "checkpoints" / str(step) / "about" / "metadata").write_text("{")
    with (
        Checkpoints(three, fingerprint="t") as checkpoints,
        pytest.raises(ValueError, match=r"Of checkpoints 30, 20, 10 in .* none can be read .* move the folder away"),
    ):
        checkpoints.restore(state_of(0))
    assert checkpoints.steps == [10, 20, 30]


def test_reading_alone_moves_nothing(three: Path):
    (three / "checkpoints" / "30" / "about" / "metadata").write_text("{")
    said: list[str] = []
    with Checkpoints(three, fingerprint="t", read_only=True, say=said.append) as checkpoints:
        assert checkpoints.restore(state_of(0))[0] == 20
    assert said[0].endswith("passed over for checkpoint 20")
    assert checkpoints.steps == [10, 20, 30]


def test_leftovers_of_a_killed_process_are_cleared(three: Path):
    for name in ("40.orbax-checkpoint-tmp-3", ".deleted-10"):
        (three / "checkpoints" / name).mkdir()
    with Checkpoints(three, fingerprint="t") as checkpoints:
        assert checkpoints.restore(state_of(0))[0] == 30
    assert sorted(path.name for path in (three / "checkpoints").iterdir()) == ["10", "20", "30"]


def test_a_disk_without_room_is_told_and_the_last_checkpoint_stays(three: Path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    big = {"params": jnp.asarray(np.random.default_rng(0).random(50_000, np.float32))}
    checkpoints = Checkpoints(three, fingerprint="t")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        checkpoints.save(40, big, Position(40))
        with pytest.raises(OSError, match=r"Checkpoint 40 could not be written .*; checkpoint 30 is intact: make room"):
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, former)
    with Checkpoints(three, fingerprint="t") as checkpoints:
        assert checkpoints.steps == [10, 20, 30]
        checkpoints.save(40, big, Position(40))
    assert checkpoints.latest_step == 40


@pytest.mark.slow
def test_a_truncated_checkpoint_costs_its_steps_and_no_bit(
    tiny_config, trained_once: Path, tmp_path: Path, capfd, monkeypatch
):
    config = tiny_config(train={"checkpoint_every": 3})
    alone = stream_params(config, trained_once)
    stop_at(monkeypatch, 8, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run")
    monkeypatch.undo()
    files = [path for path in (tmp_path / "run" / "checkpoints" / "6" / "training").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    capfd.readouterr()
    resumed = stream_params(config, train(config, tmp_path / "run"))
    said = capfd.readouterr().err
    assert "checkpoint 6 cannot be read" in said
    assert "resumed at step 3 of 11" in said
    chex.assert_trees_all_equal(resumed, alone)


@pytest.mark.slow
def test_sigterm_saves_the_step_and_exits_with_0(tiny_config, trained_once: Path, tmp_path: Path, capfd, monkeypatch):
    config = tiny_config()
    alone = stream_params(config, trained_once)
    handler = signal.getsignal(signal.SIGTERM)
    stop_at(monkeypatch, 7, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as stopped:
        train(config, tmp_path / "run")
    assert stopped.value.code == 0
    assert "SIGTERM: saved at step 7 of 11; the same command continues there" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is handler
    monkeypatch.undo()
    chex.assert_trees_all_equal(stream_params(config, train(config, tmp_path / "run")), alone)
    assert "resumed at step 7 of 11" in capfd.readouterr().err


def stop_at(monkeypatch, step: int, action) -> None:
    """Makes the training do `action` as it is about to take `step`."""
    calls = iter(range(1, 10**6))
    original = loop.shard_batch

    def acting(*arguments):
        if next(calls) == step:
            action()
        return original(*arguments)

    monkeypatch.setattr(loop, "shard_batch", acting)


@pytest.mark.usefixtures("unchecked_calls")
@pytest.mark.slow
def test_the_best_checkpoint_is_evaluated_on_demand(tiny_config, tmp_path: Path):
    config = tiny_config(train={"validate_every": 1, "epochs": 4}, optimizer={"learning_rate": 0.05, "decay_every": 0})
    workdir = train(config, tmp_path / "run")
    lines = [json.loads(line) for line in (workdir / "logs" / "metrics.jsonl").read_text().splitlines()]
    scores = {line["step"]: line["ca/validation_accuracy"] for line in lines if "ca/validation_accuracy" in line}
    assert list(scores) == [12, 24, 36, 47]  # 1438 digits, 120 a step
    assert len({line["gap/validation_accuracy"] for line in lines if "gap/validation_accuracy" in line}) == 1
    best = max(scores, key=lambda step: (scores[step], step))
    config.evaluation.checkpoint = "best"
    restored = stream_params(config, workdir)
    with Checkpoints(workdir, fingerprint=_fingerprint(workdir), read_only=True) as checkpoints:
        assert checkpoints.best_step == best
    config.evaluation.checkpoint = "last"
    last = stream_params(config, workdir)
    same = all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(last), strict=True))
    assert same == (best == 47)
    config.evaluation.checkpoint = "first"
    with pytest.raises(ValueError, match="must be 'last' or 'best', got 'first'"):
        restore_model(config, workdir)


def _fingerprint(workdir: Path) -> str:
    newest = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name))
    return json.loads((newest / "about" / "metadata").read_text())["trunk"]
