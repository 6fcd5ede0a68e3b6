"""The training step as one program: what it reads, and what is drawn and kept beside it, by the config."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh
import optax

from castream_jax.data.device_augment import INPUTS, make_device_augment
from castream_jax.experiment.config import Config
from castream_jax.experiment.model_parts import ModelParts
from castream_jax.runtime.mesh import replicated, split_over_images
from castream_jax.training.mixing import make_mix
from castream_jax.training.optimizer import warmup_steps
from castream_jax.training.step import Loss, MovingAverage, State, make_train_step

_LABELS: dict[Loss, tuple[str, ...]] = {
    "cross_entropy": ("label",),
    "binary_cross_entropy": ("target",),
    "distillation": (),
}


def step_inputs(config: Config, batch: Mapping[str, Any]) -> dict[str, Any]:
    """What the step reads of a batch."""
    places = INPUTS if config.data.augment_on_device else ()
    return {name: batch[name] for name in ("pixels", *_LABELS[config.train.loss], *places)}


def moving_average(config: Config, steps_per_epoch: float) -> MovingAverage | None:
    """What the training keeps beside the parameters, None for nothing."""
    recipe = config.train
    return MovingAverage(recipe.ema, recipe.ema_every, warmup_steps(config, steps_per_epoch)) if recipe.ema else None


def compiled_step(
    config: Config,
    parts: ModelParts,
    optimizer: optax.GradientTransformation,
    average: MovingAverage | None,
    mesh: Mesh,
) -> Callable[..., State]:
    """The training step of a batch that the devices of the mesh share; it gives the state's memory to the next one."""
    drops = config.train.target == "streams" and any(stream.dropout for stream in config.streams.values())
    step = make_train_step(
        parts,
        optimizer,
        loss=config.train.loss,
        label_smoothing=config.train.label_smoothing,
        accumulate=config.train.accumulate,
        augment=make_device_augment(config.data, config.seed),
        mix=make_mix(config.train.mixup, config.train.cutmix, config.seed),
        dropout_seed=config.seed if drops else None,
        average=average,
        mesh=mesh,
    )
    whole = replicated(mesh)
    shardings = (whole, whole, split_over_images(mesh))
    return jax.jit(step, in_shardings=shardings, out_shardings=whole, donate_argnums=0)
