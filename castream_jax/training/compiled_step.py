"""The training step of a config as one program: what it reads, draws and keeps, and its arguments as shapes."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import optax

from castream_jax.data.device_augment import augment_inputs, crops_on_device, make_device_augment
from castream_jax.data.from_config import device_side
from castream_jax.experiment.config import Config
from castream_jax.experiment.model_parts import ModelParts
from castream_jax.runtime.mesh import replicated, split_over_images
from castream_jax.training.mixing import make_mix
from castream_jax.training.optimizer import warmup_steps
from castream_jax.training.step import Loss, MovingAverage, State, initial_state, make_train_step

Tree = Any

_LABELS: dict[Loss, tuple[str, ...]] = {
    "cross_entropy": ("label",),
    "binary_cross_entropy": ("target",),
    "distillation": (),
}


def step_inputs(config: Config, batch: Mapping[str, Any]) -> dict[str, Any]:
    """What the step reads of a batch."""
    names = ("pixels", *_LABELS[config.train.loss], *augment_inputs(config.data))
    return {name: batch[name] for name in names}


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
) -> jax.stages.Wrapped:
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


def first_state(
    parts: ModelParts, optimizer: optax.GradientTransformation, average: MovingAverage | None = None
) -> State:
    """`initial_state` by one program: its copies and zeros would be one for each shape."""
    return jax.jit(_state_of(parts, optimizer, average))(parts.params, parts.stats)


def _state_of(
    parts: ModelParts, optimizer: optax.GradientTransformation, average: MovingAverage | None
) -> Callable[[Tree, Tree], State]:
    def first_state(params: Tree, stats: Tree) -> State:
        return initial_state(parts._replace(params=params, stats=stats), optimizer, average)

    return first_state


def abstract_arguments(
    config: Config, parts: ModelParts, optimizer: optax.GradientTransformation, average: MovingAverage | None
) -> tuple[Tree, Tree, Tree]:
    """State, frozen arrays and batch of `compiled_step`, as `jax.ShapeDtypeStruct`s; `parts` may hold such, too."""
    state = jax.eval_shape(_state_of(parts, optimizer, average), parts.params, parts.stats)
    count = config.train.batch_size
    size = device_side(config.data) if crops_on_device(config.data) else config.data.image_size
    arrays = {
        "pixels": jax.ShapeDtypeStruct((count, size, size, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((count,), jnp.int32),
        "target": jax.ShapeDtypeStruct((count, config.backbone.num_classes), jnp.float32),
        "size": jax.ShapeDtypeStruct((count, 2), jnp.int32),
        "placed": jax.ShapeDtypeStruct((count, 2), jnp.int32),
        "epoch": jax.ShapeDtypeStruct((count,), jnp.int32),
        "index": jax.ShapeDtypeStruct((count,), jnp.int32),
    }
    return state, parts.frozen, step_inputs(config, arrays)
