"""Mesh and shardings: one axis, `data`, over images."""

from collections.abc import Callable, Mapping, Sequence
import functools
import itertools
from typing import Any, Generic, ParamSpec, TypeVar

from flax import nnx
import jax
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np
import orbax.checkpoint as ocp

from castream_jax.runtime.bucket_folder import look_again

DATA_AXIS = "data"

_Options = ParamSpec("_Options")
_Result = TypeVar("_Result")

_barriers = itertools.count()  # a barrier's name serves once


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """All JAX devices of all processes (or those given) along the `data` axis."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (DATA_AXIS,), (AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split_over_images(mesh: Mesh) -> NamedSharding:
    """Each device holds its part of the leading axis."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises a ValueError if `batch_size` is not positive or does not split evenly over the devices of `mesh`."""
    if batch_size < 1:
        raise ValueError(f"The batch size must be positive, got {batch_size}.")
    if batch_size % mesh.size:
        lower, upper = batch_size - batch_size % mesh.size, batch_size + -batch_size % mesh.size
        nearest = f"{lower} or {upper}" if lower else str(upper)
        raise ValueError(f"A batch of {batch_size} images does not split over {mesh.size} devices: use {nearest}.")


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's share of a batch as global arrays split over images."""
    sharding = split_over_images(mesh)
    with jax.transfer_guard("allow"):  # the one copy to the device that a loop means to make
        return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}


def replicate(tree: Any, mesh: Mesh) -> Any:
    """A copy of every array on every device."""
    return jax.device_put(tree, replicated(mesh))


def wait_for_all_processes() -> None:
    """Returns when every process of the run has come here, in a minute or in days; at once in a run of one process.

    It uses no device and, unlike a collective of CPU devices, has no timeout that a slow process could overrun. What
    the others have put into a bucket is then seen here.
    """
    barrier = ocp.multihost.get_barrier_sync_fn()
    barrier(key=f"castream {next(_barriers)}", timeout_ms=7 * 24 * 3600 * 1000)
    if jax.process_count() > 1:
        look_again()


class OverImages(Generic[_Options, _Result]):
    """Decorator: `function(module, *arrays, **choices)` compiled, and run by each device on its own images.

    Whatever the function does with its images (sort them, flatten them with their masks, map over chunks), no device
    ever asks for those of another one: XLA's own partitioning would gather them all on every device.

    Args:
        function: of an NNX module that every device holds, in inference mode whatever its own mode is; of arrays, or
            trees of arrays, `[B, …]`, the first of which says how images are split over devices; and, by keyword, of
            hashable choices, for each of which a program is compiled. Its results are `[B, …]`.
    """

    def __init__(self, function: Callable[_Options, _Result]):
        functools.update_wrapper(self, function)

        def program(state: Any, *arrays: Any, graphdef: Any, images: NamedSharding | None, choices: Any) -> Any:
            def run(state: Any, *arrays: Any) -> Any:
                module = nnx.merge(graphdef, state)
                module.eval()
                return function(module, *arrays, **dict(choices))  # pyright: ignore[reportCallIssue]

            if images is None:
                return run(state, *arrays)
            specs = (PartitionSpec(), *(images.spec for _ in arrays))
            return jax.shard_map(run, mesh=images.mesh, in_specs=specs, out_specs=images.spec, check_vma=False)(
                state, *arrays
            )

        program.__name__ = function.__name__
        self._program = jax.jit(program, static_argnames=("graphdef", "images", "choices"))

    def __call__(self, *arguments: _Options.args, **choices: _Options.kwargs) -> _Result:
        arrays, static = self._split_module(arguments, choices)
        return self._program(*arrays, **static)

    def lower(self, *arguments: _Options.args, **choices: _Options.kwargs) -> jax.stages.Lowered:
        """The program for these arguments, to look at; they may be `jax.ShapeDtypeStruct`s with shardings."""
        arrays, static = self._split_module(arguments, choices)
        return self._program.lower(*arrays, **static)

    def _split_module(
        self, arguments: Sequence[Any], choices: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        module, *arrays = arguments
        graphdef, state = nnx.split(module)
        images = sharding_of(arrays[0])
        # Labels come as they are, and explicit axes of a mesh take nothing of another sharding.
        if images is not None and not isinstance(arrays[0], jax.ShapeDtypeStruct):
            arrays = jax.device_put(arrays, images)
        static = {"graphdef": graphdef, "images": images, "choices": tuple(sorted(choices.items()))}
        return (state, *arrays), static


def sharding_of(pixels: Any) -> NamedSharding | None:
    """How images `[B, …]` are split over devices, or None where they are not, or not yet known.

    Raises:
        ValueError: if an image itself is split.
    """
    if isinstance(pixels, Tracer):
        return None
    sharding = getattr(pixels, "sharding", None)
    if not isinstance(sharding, NamedSharding) or sharding.is_fully_replicated:
        return None
    if any(axis is not None for axis in sharding.spec[1:]):
        raise ValueError(
            f"Images are split over devices by their first axis alone, got {sharding.spec}: use PartitionSpec(axis)."
        )
    return NamedSharding(sharding.mesh, PartitionSpec(sharding.spec[0]))
