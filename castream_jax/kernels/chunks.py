"""Many jobs in chunks: the loop behind everything that scores masked images."""

from collections.abc import Callable
import math
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Int
import numpy as np

Tree = Any


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
