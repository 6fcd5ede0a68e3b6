"""How programs are timed: the ones to compare in turn, so that a drift of the machine hits all of them."""

from collections.abc import Callable, Mapping
import statistics
import time
from typing import Literal

import jax


def in_turn(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of a call of each, called A B A B … after two calls that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 2):
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(of_name[2:]) for name, of_name in seconds.items()}


def on_accelerator() -> bool:
    """Whether JAX computes on something other than a CPU: where batches are larger and trunks bfloat16."""
    return jax.default_backend() != "cpu"


def default_dtype() -> Literal["float32", "bfloat16"]:
    """Of the trunk, on the first device."""
    return "bfloat16" if on_accelerator() else "float32"
