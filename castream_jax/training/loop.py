"""`train`: from a config to checkpoints in a workdir. Running it again continues where it stopped."""

import math
import os
from pathlib import Path
import time

from flax import nnx
import jax
from jax.sharding import Mesh

from castream_jax.backbones import save_torch_weights
from castream_jax.config import Config
from castream_jax.data import describe_unreadable, open_source, reading_options, record_transforms, train_loader
from castream_jax.experiment import open_model
from castream_jax.parallel import check_batch_size, data_mesh, replicate, replicated, shard_batch, split_over_images
from castream_jax.progress import Progress
from castream_jax.training.checkpoint import Checkpoints
from castream_jax.training.logs import MetricLogs
from castream_jax.training.optimizer import make_optimizer
from castream_jax.training.restore import trunk_of
from castream_jax.training.step import State, initial_state, make_train_step, split_model
from castream_jax.workdir import claim_workdir


def train(config: Config, workdir: str | os.PathLike[str], *, mesh: Mesh | None = None) -> Path:
    """Trains what `config.train.target` names and leaves checkpoints and logs in `workdir`.

    Args:
        config: see `castream_jax.config.base_config`.
        workdir: folder of the experiment; one that holds an interrupted training of the same config is resumed.
        mesh: devices to split each batch over; by default all of them.

    Returns:
        The absolute workdir.

    Raises:
        ValueError, FileNotFoundError: for a config, data or weights that cannot work, before anything is written.
        FloatingPointError: if the loss is no longer finite; the last checkpoint stays.
    """
    # --- input ---
    mesh = data_mesh() if mesh is None else mesh
    check_batch_size(config.train.batch_size, mesh)
    source = open_source(config.data, "train")
    check_classes(source.class_names, config.backbone.num_classes)
    steps_per_epoch = len(source) / config.train.batch_size
    steps = int(config.train.epochs * len(source)) // config.train.batch_size
    batches = train_loader(
        source,
        batch_size=config.train.batch_size,
        num_epochs=config.train.epochs,
        seed=config.seed,
        transforms=record_transforms(config.data, train=True),
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        **reading_options(config.data),
    )

    # --- model and optimiser ---
    model = open_model(config)
    split = split_model(model, config.train.target)
    optimizer, schedule = make_optimizer(config.optimizer, steps_per_epoch=steps_per_epoch, steps=steps)
    state = replicate(initial_state(split, optimizer), mesh)
    frozen = replicate(split.frozen, mesh)
    whole, parts = replicated(mesh), split_over_images(mesh)
    step_fn = jax.jit(
        make_train_step(split, optimizer),
        in_shardings=(whole, whole, parts),
        out_shardings=whole,
        donate_argnums=0,
    )

    def rate_at(step: int) -> float:
        with jax.transfer_guard("allow"):  # a handful of scalars per report
            return float(jax.numpy.asarray(schedule(step)))

    # --- resume ---
    workdir = claim_workdir(config, workdir)
    iterator = iter(batches)
    progress = Progress(f"train {', '.join(state['totals']['heads'])}", total=steps, unit="steps")
    with Checkpoints(workdir, trunk=trunk_of(config, model)) as checkpoints:
        done = 0
        if checkpoints.latest_step is not None:
            done, state = checkpoints.restore(state, iterator)
            progress.say(f"resumed at step {done} of {steps} from {workdir / 'checkpoints'}")

        # --- loop: step, log, save ---
        with MetricLogs(workdir, resumed_at=done) as logs, jax.transfer_guard("disallow"):
            since = time.perf_counter()
            for step in range(done + 1, steps + 1):
                batch = next(iterator)
                state = step_fn(state, frozen, shard_batch(batch, mesh))
                last = step == steps
                if step % config.train.log_every == 0 or last:
                    values, state = _read_totals(state, mesh)
                    _check_finite(values, step, checkpoints)
                    now = time.perf_counter()
                    images_per_second = values.pop("images") / (now - since)
                    since = now
                    logs.write(
                        step,
                        {
                            "epoch": step / steps_per_epoch,
                            "learning_rate": rate_at(step - 1),
                            **values,
                            "images_per_second": images_per_second,
                        },
                    )
                    progress.report(step, f"{_say(values)} · {images_per_second:,.0f} images/s")
                if step % config.train.checkpoint_every == 0 or last:
                    checkpoints.save(step, state, iterator)

    if iterator.unreadable:
        progress.say(describe_unreadable(iterator.unreadable))
    iterator.close()
    if config.train.target == "backbone":
        path = workdir / "export" / "backbone.safetensors"
        path.parent.mkdir(exist_ok=True)
        nnx.update(model, state["params"])
        nnx.update(model, state["stats"])
        save_torch_weights(model.backbone, path)
        progress.say(f"weights: {path}")
    return workdir


def check_classes(class_names: tuple[str, ...], num_classes: int) -> None:
    """Raises a ValueError if the data has another number of classes than the backbone."""
    if len(class_names) != num_classes:
        raise ValueError(
            f"The data has {len(class_names)} classes and the backbone {num_classes}: "
            "set config.backbone.num_classes, or give the data the backbone was trained on."
        )


def _read_totals(state: State, mesh: Mesh) -> tuple[dict[str, float], State]:
    """Means since the last report, fetched from the device; and the state with its totals back at zero."""
    totals = jax.device_get(state["totals"])
    images = int(totals["images"])
    values: dict[str, float] = {"images": images}
    for name, sums in totals["heads"].items():
        values[f"{name}/loss"] = float(sums["loss"]) / images
        values[f"{name}/accuracy"] = int(sums["correct"]) / images
    zeros = replicate(jax.tree.map(lambda value: value * 0, totals), mesh)
    return values, {**state, "totals": zeros}


def _check_finite(values: dict[str, float], step: int, checkpoints: Checkpoints) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            last = checkpoints.latest_step
            kept = f"checkpoint {last} is intact" if last is not None else "no checkpoint was written yet"
            raise FloatingPointError(
                f"{name} is {value} at step {step}, so training stops ({kept}): lower config.optimizer.learning_rate."
            )


def _say(values: dict[str, float]) -> str:
    return " · ".join(
        f"{name} {value:.1%}" if name.endswith("accuracy") else f"{name} {value:.3f}" for name, value in values.items()
    )
