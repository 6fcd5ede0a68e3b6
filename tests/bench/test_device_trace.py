"""Gaps in a trace."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

SPEC = importlib.util.spec_from_file_location(
    "device_trace", Path(__file__).parents[2] / "benchmarks" / "device_trace.py"
)
assert SPEC is not None
assert SPEC.loader is not None
device_trace = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(device_trace)


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([], None),
        ([(3, 9)], 0),
        ([(30, 40), (0, 10), (5, 20)], 0.25),  # nothing from 20 to 30, of 0 to 40
        ([(0, 50), (10, 20), (60, 100)], 0.1),  # one within another
    ],
)
def test_time_that_no_operation_covers(intervals, expected):
    assert device_trace.gaps(intervals) == expected


def test_a_cpu_has_no_streams():
    x = jnp.ones(8)
    add = jax.jit(lambda x: x + 1)
    assert device_trace.idle_share(lambda: add(x), lambda: add(x).block_until_ready(), times=2) is None
