"""SGD or AdamW as PyTorch has them, a learning rate that falls with the epochs, and one optimiser per stream."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import optax

from castream_jax.experiment.config import Config

Tree = Any


def make_optimizer(
    config: Config, *, steps_per_epoch: float, steps: int
) -> tuple[optax.GradientTransformation, dict[str, optax.Schedule]]:
    """The optimiser of what `config.train.target` names, for a training of `steps` steps.

    Returns:
        The optimiser, and the learning rate of each head as a function of the step.

    Raises:
        ValueError: for an unknown schedule.
    """
    recipe = config.optimizer
    fall = _FALLS.get(recipe.schedule)
    if fall is None:
        raise ValueError(
            f"config.optimizer.schedule must be {' or '.join(map(repr, _FALLS))}, got {recipe.schedule!r}."
        )
    factor = warmed_up(
        fall(recipe, steps_per_epoch=steps_per_epoch, steps=steps), warmup_steps(config, steps_per_epoch)
    )
    scale = config.train.batch_size / recipe.reference_batch if recipe.reference_batch else 1.0

    def build(rate: float) -> tuple[optax.GradientTransformation, optax.Schedule]:
        def schedule(step: ArrayLike) -> jax.Array:
            return jnp.asarray(rate * scale * factor(step))

        if recipe.name == "adamw":
            optimizer = optax.adamw(schedule, weight_decay=recipe.weight_decay)
        else:
            optimizer = sgd(schedule, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
        if config.train.clip:
            optimizer = optax.chain(optax.clip_by_global_norm(config.train.clip), optimizer)
        return optimizer, schedule

    if config.train.target != "streams":
        optimizer, schedule = build(recipe.learning_rate)
        return optimizer, {"gap": schedule}
    built = {name: build(stream.learning_rate or recipe.learning_rate) for name, stream in config.streams.items()}
    return (
        per_stream({name: optimizer for name, (optimizer, _) in built.items()}),
        {name: schedule for name, (_, schedule) in built.items()},
    )


def warmup_steps(config: Config, steps_per_epoch: float) -> int:
    """Steps over which the learning rate rises."""
    return round(config.optimizer.warmup_epochs * steps_per_epoch)


def per_stream(optimizers: Mapping[str, optax.GradientTransformation]) -> optax.GradientTransformation:
    """Each stream of `{"heads": {name: parameters}}` under its own optimiser, with a state of its own."""

    def init(params: Tree) -> Tree:
        return {name: optimizer.init(params["heads"][name]) for name, optimizer in optimizers.items()}

    def update(updates: Tree, state: Tree, params: Tree = None) -> tuple[Tree, Tree]:
        updated = {
            name: optimizer.update(updates["heads"][name], state[name], params["heads"][name])
            for name, optimizer in optimizers.items()
        }
        return {"heads": {name: update for name, (update, _) in updated.items()}}, {
            name: state for name, (_, state) in updated.items()
        }

    return optax.GradientTransformation(init, update)


def sgd(schedule: optax.Schedule, *, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """PyTorch's SGD: `v <- momentum v + (g + weight_decay p)`, `p <- p - learning_rate v`.

    The decay is added before momentum; any other order is another optimiser.
    """
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(schedule, momentum))


def step_decay(
    learning_rate: float, *, factor: float, every: float, steps_per_epoch: float, steps: int
) -> optax.Schedule:
    """`learning_rate`, divided by `factor` after each `every` epochs.

    Args:
        learning_rate: initial rate.
        factor: divisor at each boundary.
        every: epochs between boundaries; 0 keeps the learning rate constant.
        steps_per_epoch: images / batch size, not rounded.
        steps: length of the training.
    """
    interval = every * steps_per_epoch
    count = int(steps / interval) if interval else 0
    boundaries = {round(number * interval): 1 / factor for number in range(1, count + 1)}
    return optax.piecewise_constant_schedule(learning_rate, boundaries)


def cosine(learning_rate: float, *, steps_per_epoch: float, steps: int, warmup_epochs: float = 0.0) -> optax.Schedule:
    """`learning_rate (1 + cos(pi epoch / epochs)) / 2`, constant within an epoch, as PyTorch's recipes step it.

    Args:
        learning_rate: rate of the first epoch.
        steps_per_epoch: images / batch size, not rounded.
        steps: length of the training.
        warmup_epochs: epochs before the first of the fall, over which it is `learning_rate`.
    """
    epochs = max(round(steps / steps_per_epoch - warmup_epochs), 1)
    values = optax.cosine_decay_schedule(learning_rate, epochs)
    starts = jnp.asarray([round((warmup_epochs + number) * steps_per_epoch) for number in range(1, epochs)], jnp.int32)

    def schedule(step: ArrayLike) -> jax.Array:
        return jnp.asarray(values((starts <= jnp.asarray(step)).sum()))

    return schedule


def warmed_up(schedule: optax.Schedule, steps: int) -> optax.Schedule:
    """`schedule`, rising linearly over the first `steps` steps: times (step + 1) / steps (Goyal et al., 2017)."""
    if not steps:
        return schedule
    return lambda step: schedule(step) * jnp.minimum((jnp.asarray(step) + 1) / steps, 1.0)


_FALLS: dict[str, Callable[..., optax.Schedule]] = {
    "step": lambda recipe, **length: step_decay(1.0, factor=recipe.decay_factor, every=recipe.decay_every, **length),
    "cosine": lambda recipe, **length: cosine(1.0, warmup_epochs=recipe.warmup_epochs, **length),
}
