"""Which values the fields of a config may have, whatever the others are: one table, looked up before work begins."""

from collections.abc import Iterator, Mapping
import math
from typing import Any

from castream_jax.allowed import Allowed, above, at_least, below, one_of, within
from castream_jax.experiment.config import Config

LARGEST_SIDE = 8192  # of the model's input, in pixels: one image in float32 is 768 MiB

_SEED = within(0, 2**32 - 1)  # what grain and JAX take

# Fields of `config.data` that both a training and an evaluation read.
_DATA = {
    "data.image_size": within(1, LARGEST_SIDE),
    "data.canvases_per_digit": at_least(1),
    "data.seed": at_least(0),
    "data.num_threads": at_least(-1),
    "data.num_workers": at_least(0),
    "data.max_pixels": at_least(0),
    "data.test_fraction": below(1),
    "data.validation_fraction": below(1),
}
# What else a training reads; `*` is any stream.
_TRAINING = _DATA | {
    "seed": _SEED,
    "data.brightness": within(0, 1),
    "data.device_side": within(0, LARGEST_SIDE),
    "streams.*.seed": _SEED,
    "streams.*.learning_rate": at_least(0),
    "streams.*.dropout": below(1),
    "optimizer.name": one_of("sgd", "adamw"),
    "optimizer.learning_rate": above(0),
    "optimizer.momentum": below(1),
    "optimizer.weight_decay": at_least(0),
    "optimizer.decay_every": at_least(0),
    "optimizer.decay_factor": at_least(1)._replace(words="at least 1, as the learning rate is divided by it"),
    "optimizer.warmup_epochs": at_least(0),
    "optimizer.reference_batch": at_least(0),
    "train.target": one_of("streams", "backbone"),
    "train.loss": one_of("cross_entropy", "binary_cross_entropy", "distillation"),
    "train.batch_norm": one_of("train", "frozen"),
    "train.label_smoothing": below(1),
    "train.mixup": at_least(0),
    "train.cutmix": at_least(0),
    "train.clip": at_least(0),
    "train.ema": below(1),
    "train.ema_every": at_least(1),
    "train.epochs": at_least(1),
    "train.batch_size": at_least(1),
    "train.log_every": at_least(1),
    "train.checkpoint_every": at_least(1),
    "train.validate_every": at_least(0),
}
_EVALUATION = _DATA | {
    "evaluation.batch_size": at_least(1),
    "evaluation.images_per_part": at_least(1),
    "evaluation.max_images": at_least(0),
    "evaluation.gallery": at_least(0),
    "evaluation.memory_mib": at_least(0),
    "evaluation.sanity_images": at_least(0),
}


def check_training_fields(config: Config) -> None:
    """Raises a ValueError that names the first field of a training whose value cannot be."""
    _check(config, _TRAINING)
    if 0 < config.data.device_side < config.data.image_size:
        raise ValueError(
            f"config.data.device_side must be 0 or at least config.data.image_size, which is {config.data.image_size}, "
            f"got {config.data.device_side}."
        )
    padding, size = config.data.crop_padding, config.data.image_size
    if not 0 <= padding <= size:
        raise ValueError(
            f"config.data.crop_padding must be between 0 and config.data.image_size, which is {size}, got {padding}."
        )


def check_evaluation_fields(config: Config) -> None:
    """Raises a ValueError that names the first field of an evaluation whose value cannot be."""
    _check(config, _EVALUATION)


def allowed_values() -> dict[str, str]:
    """By field, the words for what it may be; any stream is called NAME."""
    return {
        field.replace("*", "NAME"): allowed.words
        for table in (_TRAINING, _EVALUATION)
        for field, allowed in table.items()
    }


def _check(config: Config, table: Mapping[str, Allowed]) -> None:
    for pattern, allowed in table.items():
        for field, value in _values(config, pattern):
            if not isinstance(value, str) and not math.isfinite(value):
                raise ValueError(f"config.{field} must be a finite number, got {value}.")
            if not allowed.includes(value):
                raise ValueError(f"config.{field} must be {allowed.words}, got {value!r}.")


def _values(config: Config, pattern: str) -> Iterator[tuple[str, Any]]:
    """Name and value of each field that a pattern of the table means."""
    name, _, rest = pattern.partition(".")
    for key in config if name == "*" else (name,):
        if rest:
            yield from ((f"{key}.{inner}", value) for inner, value in _values(config[key], rest))
        else:
            yield key, config[key]
