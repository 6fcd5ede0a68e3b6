"""Many jobs, a few at a time: the loop behind everything that scores masked images."""

from collections.abc import Callable
import math
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

Tree = Any

DEFAULT_CHUNK = 32


def map_chunks(function: Callable[[Tree], Tree], jobs: Tree, chunk: int) -> Tree:
    """`function` of all `jobs`, computed on at most `chunk` at a time.

    Memory is that of one chunk, however many jobs there are. The jobs are split evenly, so that the last chunk is
    nearly full; what is missing there is computed on the last job again and dropped.

    Args:
        function: from jobs (a tree of arrays `[n, …]`) to results (a tree of arrays `[n, …]`), row by row.
        jobs: a tree of arrays `[N, …]` with N >= 1.
        chunk: jobs per call, at most.
    """
    count = jax.tree.leaves(jobs)[0].shape[0]
    num_chunks = math.ceil(count / chunk)
    chunk = math.ceil(count / num_chunks)
    padding = num_chunks * chunk - count

    def split(rows: jax.Array) -> jax.Array:
        padded = jnp.concatenate([rows, jnp.repeat(rows[-1:], padding, axis=0)]) if padding else jnp.asarray(rows)
        return padded.reshape(num_chunks, chunk, *rows.shape[1:])

    results = lax.map(function, jax.tree.map(split, jobs))
    return jax.tree.map(lambda rows: rows.reshape(-1, *rows.shape[2:])[:count], results)
