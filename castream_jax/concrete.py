"""What can be known of an array where its values are there: inside a trace nothing is looked at, and nothing costs."""

from typing import Any

import jax
from jax.core import Tracer
from jaxtyping import Array
import numpy as np

_ROUNDING = 1e-3  # resizing and 16-bit formats leave [0, 1] by less


def is_concrete(values: Any) -> bool:
    """Whether this process has the values themselves, all of them."""
    return not isinstance(values, Tracer) and getattr(values, "is_fully_addressable", True)


def check_range(what: str, values: Array | np.ndarray, hint: str) -> None:
    """Raises a ValueError if concrete `values` are not finite or not in [0, 1]."""
    if is_concrete(values) and values.size:
        low, high = extremes(values)
        if not np.isfinite([low, high]).all():
            raise ValueError(f"{what} must be finite, got NaN or infinity: look at how they were made.")
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            raise ValueError(f"{what} must lie in [0, 1], got {low:.4g} … {high:.4g}: {hint}.")


def extremes(values: Array | np.ndarray) -> tuple[float, float]:
    """Least and greatest value, NaN where there is one."""
    if isinstance(values, np.ndarray):
        return float(values.min()), float(values.max())
    with jax.ensure_compile_time_eval():  # values that a trace closes over, too, are there
        low, high = jax.device_get(_extremes_on_device(values))
    return float(low), float(high)


# One program: operation by operation, an accelerator compiles and waits for every one.
@jax.jit
def _extremes_on_device(values: Array) -> tuple[Array, Array]:
    return values.min(), values.max()
