"""Many jobs in chunks: the loop behind everything that scores masked images, and the size of a chunk."""

from collections.abc import Callable
import functools
import math
from typing import Any

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Int
import numpy as np

from castream_jax.model import Model

Tree = Any

# Fastest batch size per platform. On two CPU cores, at 32 x 32 pixels, a CIFAR ResNet-20 runs at 1660, 1810, 1890 and
# 1970 images/s for 16, 32, 64 and 128 images at once; at 224 x 224, ResNet-50 at 28.5, 31, 31.5 and 31.5 for 4, 8, 16
# and 32.
_FASTEST = {"cpu": 32}
_FASTEST_ELSEWHERE = 256


def map_chunks(function: Callable[[Tree], Tree], jobs: Tree, chunk: int) -> Tree:
    """`function` of all `jobs`, computed on at most `chunk` at a time.

    Memory is that of one chunk, however many jobs there are. The jobs are split evenly, so that the last chunk is
    nearly full; what is missing there is computed on the last job again and dropped.

    Args:
        function: from jobs (a tree of arrays `[n, …]`) to results (a tree of arrays `[n, …]`), row by row.
        jobs: a tree of arrays `[N, …]` with N >= 1.
        chunk: jobs per call, at most.
    """
    return _join(lax.map(function, _split(jobs, chunk)), jobs)


def map_first_chunks(function: Callable[[Tree], Array], jobs: Tree, count: Int[Array, ""], chunk: int) -> Array:
    """`map_chunks` over the first `count` jobs alone, a number that is known only when the program runs.

    Args:
        function: as in `map_chunks`, with one array of results.
        jobs: a tree of arrays `[N, …]` with N >= 1.
        count: jobs that are wanted, 0 … N.
        chunk: jobs per call, at most.

    Returns:
        `[N, …]`; rows after the first `count` are undefined.
    """
    chunks = _split(jobs, chunk)
    size = jax.tree.leaves(chunks)[0].shape[1]
    first = jax.eval_shape(function, jax.tree.map(lambda rows: rows[0], chunks))

    def step(number: Array, results: Array) -> Array:
        return results.at[number].set(function(jax.tree.map(lambda rows: rows[number], chunks)))

    results = jnp.zeros((jax.tree.leaves(chunks)[0].shape[0], *first.shape), first.dtype)
    return _join(lax.fori_loop(0, (count + size - 1) // size, step, results), jobs)


def _split(jobs: Tree, chunk: int) -> Tree:
    count = _count(jobs)
    num_chunks = math.ceil(count / chunk)
    chunk = math.ceil(count / num_chunks)
    padding = num_chunks * chunk - count

    def split(rows: Array | np.ndarray) -> Array:
        padded = jnp.concatenate([rows, jnp.repeat(rows[-1:], padding, axis=0)]) if padding else jnp.asarray(rows)
        return padded.reshape(num_chunks, chunk, *rows.shape[1:])

    return jax.tree.map(split, jobs)


def _join(results: Tree, jobs: Tree) -> Tree:
    return jax.tree.map(lambda rows: rows.reshape(-1, *rows.shape[2:])[: _count(jobs)], results)


def _count(jobs: Tree) -> int:
    return jax.tree.leaves(jobs)[0].shape[0]


def chunk_for(model: Model, height: int, width: int, memory_bytes: int = 0) -> int:
    """Masked images that one trunk pass should take on each device: the fastest number, if they fit.

    If not, half as many, and so on down to 1. The compiler is asked what a pass needs: what lives at once in the
    model's own program (its jaxpr) says little of what XLA allocates for it.

    Args:
        model: backbone with heads.
        height, width: of the images, in pixels.
        memory_bytes: for the intermediate results of one pass; 0: a quarter of an accelerator's memory, or 512 MiB of a
            CPU's, which all devices of the host share.

    Raises:
        ValueError: for a negative `memory_bytes`.
    """
    if memory_bytes < 0:
        raise ValueError(f"The memory for a trunk pass must be positive, or 0 for the default, got {memory_bytes}.")
    device = jax.local_devices()[0]
    memory_bytes = memory_bytes or _default_memory(device)
    graphdef, state = nnx.split(model)
    leaves, structure = jax.tree.flatten(state)
    shapes = tuple((leaf.shape, jnp.dtype(leaf.dtype)) for leaf in leaves)
    chunk = _FASTEST.get(device.platform, _FASTEST_ELSEWHERE)
    while chunk > 1 and _bytes_of_a_pass(graphdef, structure, shapes, (chunk, height, width, 3)) > memory_bytes:
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
) -> int:
    """What the compiler allocates for a pass over masked images, besides parameters, images and logits."""

    def masked_pass(state: Any, pixels: Array, masks: Array) -> dict[str, Array]:
        return nnx.merge(graphdef, state)(pixels * masks)

    state = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*shape) for shape in shapes])
    pixels = jax.ShapeDtypeStruct(pixels_shape, jnp.float32)
    masks = jax.ShapeDtypeStruct((*pixels_shape[:3], 1), jnp.float32)
    memory = jax.jit(masked_pass).lower(state, pixels, masks).compile().memory_analysis()
    return memory.temp_size_in_bytes if memory else 0  # a backend that cannot tell gets its fastest number
