"""The programs of a config as training and evaluation compile them, for devices that need not be there."""

from collections.abc import Sequence
import functools
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp

from castream_jax.ahead_of_time.chips import Device, chip_of
from castream_jax.attribution.arguments import check_methods, check_probability
from castream_jax.attribution.chunk_size import chunk_for
from castream_jax.evaluation.on_device import explain_batch
from castream_jax.evaluation.sanity import BASELINES
from castream_jax.experiment.build import abstract_model
from castream_jax.experiment.config import Config
from castream_jax.experiment.model_parts import model_parts
from castream_jax.experiment.ranges import check_evaluation_fields
from castream_jax.model import Model
from castream_jax.protocol import get_protocol
from castream_jax.runtime.mesh import data_mesh, replicated, split_over_images
from castream_jax.training.compiled_step import abstract_arguments, compiled_step, moving_average
from castream_jax.training.meter import Length
from castream_jax.training.optimizer import make_optimizer
from castream_jax.training.recipe import check_recipe

# Of ImageNet. How many there are changes no more of a training step than the constants of its schedule.
_TRAINING_IMAGES = 1_281_167


class Program(NamedTuple):
    """A program before it is compiled.

    Attributes:
        lowered: the program.
        images: that it takes at once, over all its chips.
        chips: that run it together.
        remark: what to know of it, or empty.
    """

    lowered: jax.stages.Lowered
    images: int
    chips: int
    remark: str = ""


def train_program(config: Config, devices: Sequence[Device]) -> Program:
    """One training step, whose batch all `devices` share.

    Raises:
        ValueError: if the config cannot be trained, or its batch does not split over so many devices.
    """
    mesh = data_mesh(devices)
    check_recipe(config, mesh)
    parts = model_parts(abstract_model(config), config.train.target, config.train.batch_norm)
    length = Length(_TRAINING_IMAGES, config.train.batch_size, config.train.epochs)
    optimizer, _ = make_optimizer(config, steps_per_epoch=length.steps_per_epoch, steps=length.steps)
    average = moving_average(config, length.steps_per_epoch)
    step = compiled_step(config, parts, optimizer, average, mesh)
    lowered = step.lower(*abstract_arguments(config, parts, optimizer, average))
    return Program(lowered, config.train.batch_size, mesh.size)


def evaluate_program(config: Config, devices: Sequence[Device]) -> Program:
    """Explaining one batch. Each process evaluates its own images on its own chips, so it is that of one process.

    Raises:
        ValueError: if the config cannot be evaluated.
    """
    check_evaluation_fields(config)
    settings, size = config.evaluation, config.data.image_size
    of_process = [device for device in devices if device.process_index == devices[0].process_index]
    mesh = data_mesh(of_process)
    model = abstract_model(config)
    protocol = get_protocol(settings.protocol)
    methods = check_methods(model, [*settings.methods, *(BASELINES if settings.baselines else ())], protocol)
    check_probability(model, protocol)
    memory_bytes = settings.memory_mib * 2**20 or chip_of(devices[0]).memory_bytes // 4  # as on the chip itself
    chunk = chunk_for(model, size, size, memory_bytes, devices[0])
    images = settings.batch_size * mesh.size
    over_images = functools.partial(jax.ShapeDtypeStruct, sharding=split_over_images(mesh))
    explain: Any = explain_batch  # of shapes instead of arrays
    lowered = explain.lower(
        _on_every_device(model, replicated(mesh)),
        over_images((images, size, size, 3), jnp.uint8),
        over_images((images,), jnp.int32),
        methods=methods,
        protocols=(protocol,),
        chunk=chunk,
    )
    count = len(devices) // mesh.size
    alone = "one process" if count == 1 else f"{count} processes, each on its own images"
    remark = f"{alone}; {chunk} masked images per pass and chip"
    return Program(lowered, images, mesh.size, remark)


def _on_every_device(model: Model, sharding: jax.sharding.NamedSharding) -> Model:
    graphdef, state = nnx.split(model)
    placed = functools.partial(jax.ShapeDtypeStruct, sharding=sharding)
    return nnx.merge(graphdef, jax.tree.map(lambda leaf: placed(leaf.shape, leaf.dtype), state))


PROGRAMS = {"train": train_program, "evaluate": evaluate_program}
