"""How many masked images a trunk pass takes: as many as is fastest, if they fit into memory."""

import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from castream_jax.model import Model

# Fastest batch size per platform. On two CPU cores, at 32 x 32 pixels, a CIFAR ResNet-20 runs at 1660, 1810, 1890 and
# 1970 images/s for 16, 32, 64 and 128 images at once; at 224 x 224, ResNet-50 at 28.5, 31, 31.5 and 31.5 for 4, 8, 16
# and 32.
_FASTEST = {"cpu": 32}
_FASTEST_ELSEWHERE = 256


def chunk_for(model: Model, height: int, width: int, memory_bytes: int = 0, device: Any = None) -> int:
    """Masked images that one trunk pass should take on each device: the fastest number, if they fit.

    If not, half as many, and so on down to 1. The compiler is asked what a pass needs: what lives at once in the
    model's own program (its jaxpr) says little of what XLA allocates for it.

    Args:
        model: backbone with heads.
        height, width: of the images, in pixels.
        memory_bytes: for the intermediate results of one pass; 0: a quarter of an accelerator's memory, or 512 MiB of a
            CPU's, which all devices of the host share.
        device: that the pass is for; by default the first one here. It may be one that is not there, of a topology.

    Raises:
        ValueError: for a negative `memory_bytes`.
    """
    if memory_bytes < 0:
        raise ValueError(f"The memory for a trunk pass must be positive, or 0 for the default, got {memory_bytes}.")
    device = jax.local_devices()[0] if device is None else device
    memory_bytes = memory_bytes or _default_memory(device)
    graphdef, state = nnx.split(model)
    leaves, structure = jax.tree.flatten(state)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    chunk = _FASTEST.get(device.platform, _FASTEST_ELSEWHERE)
    while chunk > 1 and _bytes_of_a_pass(graphdef, structure, shapes, (chunk, height, width, 3), device) > memory_bytes:
        chunk //= 2
    return chunk


def _default_memory(device: Any) -> int:
    statistics = device.memory_stats() if device.platform != "cpu" else None
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"] // 4
    return 2**29 // jax.local_device_count()


@functools.cache
def _bytes_of_a_pass(
    graphdef: nnx.GraphDef,
    structure: Any,
    shapes: tuple[tuple[tuple[int, ...], Any], ...],
    pixels_shape: tuple[int, int, int, int],
    device: Any,
) -> int:
    """What the compiler allocates for a pass over masked images, besides parameters, images and logits."""

    def masked_pass(state: Any, pixels: Array, masks: Array) -> dict[str, Array]:
        model = nnx.merge(graphdef, state)
        model.eval()
        return model(pixels * masks)

    placed = functools.partial(jax.ShapeDtypeStruct, sharding=jax.sharding.SingleDeviceSharding(device))
    state = jax.tree.unflatten(structure, [placed(*shape) for shape in shapes])
    pixels = placed(pixels_shape, jnp.float32)
    masks = placed((*pixels_shape[:3], 1), jnp.float32)
    memory = jax.jit(masked_pass).lower(state, pixels, masks).compile().memory_analysis()
    return memory.temp_size_in_bytes if memory else 0  # a backend that cannot tell gets its fastest number
