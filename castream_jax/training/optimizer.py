"""The paper's optimiser: SGD with momentum, PyTorch's weight decay, and step decay of the rate."""

import optax

from castream_jax.config import Config


def make_optimizer(
    config: Config, *, steps_per_epoch: float, steps: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimiser of `config.optimizer` and its schedule, for a training of `steps` steps."""
    schedule = step_decay(
        config.learning_rate,
        factor=config.decay_factor,
        every=config.decay_every,
        steps_per_epoch=steps_per_epoch,
        steps=steps,
    )
    return sgd(schedule, momentum=config.momentum, weight_decay=config.weight_decay), schedule


def step_decay(
    learning_rate: float, *, factor: float, every: float, steps_per_epoch: float, steps: int
) -> optax.Schedule:
    """`learning_rate`, divided by `factor` after each `every` epochs.

    Args:
        learning_rate: initial rate.
        factor: divisor at each boundary.
        every: epochs between boundaries; 0 keeps the rate constant.
        steps_per_epoch: images / batch size, not rounded.
        steps: length of the training.
    """
    interval = every * steps_per_epoch
    count = int(steps / interval) if interval else 0
    boundaries = {round(number * interval): 1 / factor for number in range(1, count + 1)}
    return optax.piecewise_constant_schedule(learning_rate, boundaries)


def sgd(schedule: optax.Schedule, *, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """PyTorch's SGD: `v <- momentum v + (g + weight_decay p)`, `p <- p - rate v`.

    The decay is added before momentum; any other order is another optimiser.
    """
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(schedule, momentum))
