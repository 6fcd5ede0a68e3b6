"""The training step as one program: what it reads, and what it reads and returns for a config, as shapes alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import optax

from castream_jax.experiment.config import Config
from castream_jax.experiment.model_parts import ModelParts
from castream_jax.runtime.mesh import replicated, split_over_images
from castream_jax.training.step import Loss, State, initial_state, make_train_step

Tree = Any

_LABELS: dict[Loss, tuple[str, ...]] = {
    "cross_entropy": ("label",),
    "binary_cross_entropy": ("target",),
    "distillation": (),
}


def inputs_of(loss: Loss) -> tuple[str, ...]:
    """The arrays of a batch that a step with this loss reads."""
    return ("pixels", *_LABELS[loss])


def compiled_step(config: Config, parts: ModelParts, optimizer: optax.GradientTransformation, mesh: Mesh) -> Any:
    """The jitted training step of a batch that all devices share; it gives the memory of its state to the next one."""
    step = make_train_step(
        parts,
        optimizer,
        loss=config.train.loss,
        label_smoothing=config.train.label_smoothing,
        accumulate=config.train.accumulate,
        mesh=mesh,
    )
    whole = replicated(mesh)
    shardings = (whole, whole, split_over_images(mesh))
    return jax.jit(step, in_shardings=shardings, out_shardings=whole, donate_argnums=0)


def first_state(parts: ModelParts, optimizer: optax.GradientTransformation) -> State:
    """`initial_state` by one program: its copies and zeros would be one for each shape."""
    return jax.jit(_state_of(parts, optimizer))(parts.params, parts.stats)


def _state_of(parts: ModelParts, optimizer: optax.GradientTransformation) -> Callable[[Tree, Tree], State]:
    def first_state(params: Tree, stats: Tree) -> State:
        return initial_state(parts._replace(params=params, stats=stats), optimizer)

    return first_state


def abstract_arguments(
    config: Config, parts: ModelParts, optimizer: optax.GradientTransformation
) -> tuple[Tree, Tree, Tree]:
    """State, frozen arrays and batch of `compiled_step`, as `jax.ShapeDtypeStruct`s; `parts` may hold such, too."""
    state = jax.eval_shape(_state_of(parts, optimizer), parts.params, parts.stats)
    count, size = config.train.batch_size, config.data.image_size
    arrays = {
        "pixels": jax.ShapeDtypeStruct((count, size, size, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((count,), jnp.int32),
        "target": jax.ShapeDtypeStruct((count, config.backbone.num_classes), jnp.float32),
    }
    return state, parts.frozen, {name: arrays[name] for name in inputs_of(config.train.loss)}
