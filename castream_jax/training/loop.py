"""`train`: from a config to checkpoints in a workdir. Running it again continues where it stopped."""

import math
import os
from pathlib import Path
import time

from flax import nnx
import jax
from jax.sharding import Mesh

from castream_jax.backbones import save_torch_weights
from castream_jax.data import describe_unreadable, open_source, reading_options, record_transforms, train_loader
from castream_jax.data.image_paths import describe_skipped
from castream_jax.experiment.build import open_model
from castream_jax.experiment.checkpoint import Checkpoints
from castream_jax.experiment.config import Config
from castream_jax.experiment.restore import trunk_of
from castream_jax.experiment.workdir import claim_workdir
from castream_jax.runtime.mesh import check_batch_size, data_mesh, replicate, replicated, shard_batch, split_over_images
from castream_jax.runtime.progress import Progress
from castream_jax.training.logs import MetricLogs
from castream_jax.training.optimizer import make_optimizer
from castream_jax.training.profile import StepProfile
from castream_jax.training.step import State, initial_state, make_train_step, split_model, trained_heads
from castream_jax.training.termination import Termination
from castream_jax.training.validate import make_validation


def train(config: Config, workdir: str | os.PathLike[str], *, mesh: Mesh | None = None, profile: bool = False) -> Path:
    """Trains what `config.train.target` names and leaves checkpoints and logs in `workdir`.

    Args:
        config: see `castream_jax.experiment.config.base_config`.
        workdir: folder of the experiment; one that holds an interrupted training of the same config is resumed.
        mesh: devices to split each batch over; by default all of them.
        profile: write a trace of steps 10 to 20 to `logs/`, for TensorBoard or xprof.

    Returns:
        The absolute workdir.

    Raises:
        ValueError, FileNotFoundError: for a config, data or weights that cannot work, before anything is written.
        FloatingPointError: if the loss is no longer finite; the last checkpoint stays.
        OSError: if a checkpoint cannot be written; the last one stays.
        SystemExit: with status 0, after SIGTERM: a checkpoint of the step has been written.
    """
    # --- input ---
    mesh = data_mesh() if mesh is None else mesh
    check_recipe(config, mesh)
    source = open_source(config.data, "train")
    check_classes(source.class_names, config.backbone.num_classes)
    batch_size = config.train.batch_size
    steps_per_epoch = len(source) / batch_size
    steps = int(config.train.epochs * len(source)) // batch_size
    batches = train_loader(
        source,
        batch_size=batch_size,
        num_epochs=config.train.epochs,
        seed=config.seed,
        transforms=record_transforms(config.data, train=True),
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        **reading_options(config.data),
    )
    inputs = ("pixels", "label") if config.train.loss == "cross_entropy" else ("pixels", "target")

    # --- model and optimiser ---
    model = open_model(config)
    split = split_model(model, config.train.target, config.train.batch_norm)
    heads = trained_heads(split)
    optimizer, schedules = make_optimizer(config, steps_per_epoch=steps_per_epoch, steps=steps)
    state = replicate(initial_state(split, optimizer), mesh)
    frozen = replicate(split.frozen, mesh)
    whole, parts = replicated(mesh), split_over_images(mesh)
    step_fn = jax.jit(
        make_train_step(
            split,
            optimizer,
            loss=config.train.loss,
            label_smoothing=config.train.label_smoothing,
            accumulate=config.train.accumulate,
            mesh=mesh,
        ),
        in_shardings=(whole, whole, parts),
        out_shardings=whole,
        donate_argnums=0,
    )
    validate = make_validation(config, split, mesh) if config.train.validate_every else None
    images_between = config.train.validate_every * len(source)
    measure = "validation_accuracy" if config.train.loss == "cross_entropy" else "validation_mean_average_precision"

    def rates_at(step: int) -> dict[str, float]:
        """The learning rate, once if it is the same for all heads."""
        with jax.transfer_guard("allow"):  # a handful of scalars per report
            rates = {name: float(jax.numpy.asarray(schedules[name](step))) for name in heads}
        if len(set(rates.values())) == 1:
            return {"learning_rate": rates[heads[0]]}
        return {f"{name}/learning_rate": rate for name, rate in rates.items()}

    # --- resume ---
    workdir = claim_workdir(config, workdir)
    iterator = iter(batches)
    progress = Progress(f"train {', '.join(heads)}", total=steps, unit="steps")
    if skipped := describe_skipped(getattr(source, "skipped", {})):
        progress.say(skipped)
    trunk = trunk_of(config, model)
    with (
        Termination() as termination,
        Checkpoints(workdir, trunk=trunk, config=config.to_json(), say=progress.say) as checkpoints,
    ):
        done = 0
        if checkpoints.latest_step is not None:
            done, state = checkpoints.restore(state, iterator)
            progress.say(f"resumed at step {done} of {steps} from {workdir / 'checkpoints'}")

        # --- loop: step, log, validate, save ---
        with (
            MetricLogs(workdir, resumed_at=done, config=config) as logs,
            StepProfile(workdir / "logs", first=done + 10, last=done + 20, active=profile) as trace,
            jax.transfer_guard("disallow"),
        ):
            since = time.perf_counter()
            for step in range(done + 1, steps + 1):
                batch = next(iterator)
                images = shard_batch({key: batch[key] for key in inputs}, mesh)
                with trace.step(step):
                    state = step_fn(state, frozen, images)
                trace.stop_after(step, state)
                last, stopped = step == steps, termination.reached(step)
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
                            **rates_at(step - 1),
                            **values,
                            "images_per_second": images_per_second,
                        },
                    )
                    progress.report(step, f"{_say(values)} · {images_per_second:,.0f} images/s")
                score = None
                if validate is not None and (last or _crosses(images_between, step, batch_size)):
                    begin = time.perf_counter()
                    scores = {f"{name}/{measure}": value for name, value in validate(state, frozen).items()}
                    score = sum(scores[f"{name}/{measure}"] for name in heads) / len(heads)
                    logs.write(step, scores)
                    progress.say(f"step {step:,} · {_say(scores)}")
                    since += time.perf_counter() - begin
                if step % config.train.checkpoint_every == 0 or last or stopped or score is not None:
                    checkpoints.save(step, state, iterator, score)
                if stopped and not last:
                    checkpoints.wait()
                    progress.say(f"SIGTERM: saved at step {step} of {steps}; the same command continues from there")
                    raise SystemExit(0)

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


def check_recipe(config: Config, mesh: Mesh) -> None:
    """Raises a ValueError for fields of `config.train` that cannot be, alone or together."""
    recipe = config.train
    if recipe.loss not in ("cross_entropy", "binary_cross_entropy"):
        raise ValueError(f"config.train.loss must be 'cross_entropy' or 'binary_cross_entropy', got {recipe.loss!r}.")
    if recipe.accumulate < 1 or recipe.batch_size % recipe.accumulate:
        raise ValueError(
            f"A batch of {recipe.batch_size} images does not split into {recipe.accumulate} equal parts: "
            "set config.train.accumulate to a divisor of config.train.batch_size."
        )
    check_batch_size(recipe.batch_size // recipe.accumulate, mesh)
    if recipe.target == "streams" and recipe.loss == "binary_cross_entropy":
        for name, stream in config.streams.items():
            if stream.class_specific:
                raise ValueError(
                    f"Stream {name!r} is class-specific, which is trained from the one label of each image: "
                    "with binary_cross_entropy, images have several."
                )


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


def _crosses(interval: int, step: int, batch_size: int) -> bool:
    """Whether `step` completes another `interval` images."""
    return step * batch_size // interval > (step - 1) * batch_size // interval


def _say(values: dict[str, float]) -> str:
    return " · ".join(
        f"{name.replace('_', ' ')} {value:.3f}" if name.endswith("loss") else f"{name.replace('_', ' ')} {value:.1%}"
        for name, value in values.items()
    )
