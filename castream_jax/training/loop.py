"""`train`: from a config to checkpoints in a workdir. Running it again continues where it stopped."""

import os
from pathlib import Path

from flax import nnx
import jax
from jax.sharding import Mesh

from castream_jax.backbones import save_torch_weights
from castream_jax.data import (
    Batches,
    BatchIterator,
    Source,
    describe_unreadable,
    reading_options,
    record_transforms,
    train_loader,
)
from castream_jax.data.content import content_digest
from castream_jax.experiment.build import open_model
from castream_jax.experiment.checkpoint import Checkpoints
from castream_jax.experiment.claim import claim_workdir
from castream_jax.experiment.config import Config
from castream_jax.experiment.lock import only_one
from castream_jax.experiment.model_parts import model_parts
from castream_jax.experiment.origins import check_training_images, config_in_place, keep_origins
from castream_jax.experiment.restore import frozen_fingerprint
from castream_jax.experiment.selection import validated_split
from castream_jax.experiment.workdir import Workdir
from castream_jax.model import Model
from castream_jax.runtime.bucket_folder import Place, as_given
from castream_jax.runtime.mesh import data_mesh, replicate, shard_batch
from castream_jax.runtime.progress import Progress
from castream_jax.training.compiled_step import compiled_step, first_state, moving_average, step_inputs
from castream_jax.training.logs import MetricLogs
from castream_jax.training.meter import Length, Meter
from castream_jax.training.optimizer import make_optimizer
from castream_jax.training.profile import StepProfile
from castream_jax.training.recipe import check_recipe, open_training_data, remarks
from castream_jax.training.step import State
from castream_jax.training.termination import Termination
from castream_jax.training.validate import make_validation

_SAVED = "SIGTERM: saved at step {} of {}; the same command continues there"


def train(config: Config, workdir: str | os.PathLike[str], *, mesh: Mesh | None = None, profile: bool = False) -> Place:
    """Trains what `config.train.target` names and leaves checkpoints and logs in `workdir`.

    Args:
        config: see `castream_jax.experiment.config.base_config`.
        workdir: folder of the experiment, or its address in a bucket (`s3://…`, `gs://…`); one that holds an
            interrupted training of the same config is resumed.
        mesh: devices that share each batch; by default all of them.
        profile: write a trace of steps 10 to 20 to `logs/`, for TensorBoard or xprof.

    Returns:
        The absolute workdir; of an address, an `etils.epath.Path`.

    Raises:
        ValueError, FileNotFoundError: for a config, data or weights that cannot work, before anything is written; or
            if another training holds the workdir.
        FloatingPointError: if the loss is no longer finite; the last checkpoint stays.
        OSError: if a checkpoint cannot be written; the last one stays.
        SystemExit: with status 0, after SIGTERM: a checkpoint of the step has been written.
    """
    # --- input ---
    mesh = data_mesh() if mesh is None else mesh
    check_recipe(config, mesh)
    workdir, given = Workdir.at(workdir), config
    config = config_in_place(given, workdir)
    source = open_training_data(config, workdir)
    length = Length(len(source), config.train.batch_size, config.train.epochs)
    iterator = iter(_open_batches(config, source))

    # --- model and optimiser ---
    model = open_model(config)
    parts = model_parts(model, config.train.target, config.train.batch_norm)
    optimizer, schedules = make_optimizer(config, steps_per_epoch=length.steps_per_epoch, steps=length.steps)
    average = moving_average(config, length.steps_per_epoch)
    state, frozen = replicate((first_state(parts, optimizer, average), parts.frozen), mesh)
    progress = Progress(f"train {', '.join(parts.heads)}", total=length.steps, unit="steps")
    step_fn = progress.first_call(compiled_step(config, parts, optimizer, average, mesh))
    validate = make_validation(config, parts, mesh, source.class_names, progress.say)

    with only_one(workdir, "training"):
        # --- resume ---
        claim_workdir(given, workdir)
        digest = content_digest(source, sizes=False)
        check_training_images(workdir, digest)
        done = 0
        with Termination() as termination, _checkpoints(given, workdir, model, progress) as checkpoints:
            if checkpoints.latest_step is not None:
                done, state = checkpoints.restore(state, iterator)
                progress.say(f"resumed at step {done} of {length.steps} from {workdir.checkpoints}")
            keep_origins(config, workdir, source.class_names, digest)
            for remark in remarks(config, source):
                progress.say(remark)

            # --- loop: step, log, validate, save ---
            with (
                MetricLogs(workdir, resumed_at=done, config=config) as logs,
                StepProfile(workdir.logs, first=done + 10, last=done + 20, active=profile) as trace,
                jax.transfer_guard("disallow"),
            ):
                meter = Meter(config, length, schedules, validate, mesh, logs, progress, checkpoints)
                for step in range(done + 1, length.steps + 1):
                    images = shard_batch(step_inputs(config, meter.next_batch(iterator)), mesh)
                    with trace.step(step):
                        state = step_fn(state, frozen, images)
                    trace.stop_after(step, state)
                    last, stopped = step == length.steps, termination.reached(step)
                    state = meter.report(step, state)
                    score = meter.validate(step, state, frozen)
                    if step % config.train.checkpoint_every == 0 or last or stopped or score is not None:
                        meter.save(step, state, iterator, score)
                    if stopped and not last:
                        checkpoints.wait()
                        progress.say(_SAVED.format(step, length.steps))
                        raise SystemExit(0)

        # --- output ---
        _finish(config, model, state, iterator, workdir, progress)
    return as_given(workdir.folder)


def _checkpoints(config: Config, workdir: Workdir, model: Model, progress: Progress) -> Checkpoints:
    return Checkpoints(
        workdir,
        fingerprint=frozen_fingerprint(config, model),
        config=config.to_json(),
        validated_on=validated_split(config),
        say=progress.say,
    )


def _finish(
    config: Config, model: Model, state: State, iterator: BatchIterator, workdir: Workdir, progress: Progress
) -> None:
    if iterator.unreadable:
        progress.say(describe_unreadable(iterator.unreadable))
    iterator.close()
    if config.train.target == "backbone":
        _export_backbone(model, state, workdir.backbone)
        progress.say(f"weights: {workdir.backbone}")


def _open_batches(config: Config, source: Source) -> Batches:
    """This process's share of every batch of the training."""
    return train_loader(
        source,
        batch_size=config.train.batch_size,
        num_epochs=config.train.epochs,
        seed=config.seed,
        transforms=record_transforms(config.data, train=True),
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        numbered=config.data.augment_on_device,
        **reading_options(config.data),
    )


def _export_backbone(model: Model, state: State, path: Path) -> None:
    nnx.update(model, state["params"])
    nnx.update(model, state["stats"])
    path.parent.mkdir(exist_ok=True)
    save_torch_weights(model.backbone, path)
