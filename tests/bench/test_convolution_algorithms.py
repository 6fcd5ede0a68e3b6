"""The algorithms of convolution that stand for a GPU's are convolutions, and round as they should."""

import importlib
from pathlib import Path

import jax
from jax import lax
import numpy as np
import pytest

# Height, width, input and output channels, kernel, stride, padding, groups: as in the networks.
SHAPES = [
    (14, 15, 8, 6, 3, 1, 1, 1),
    (17, 13, 8, 6, 3, 2, 1, 1),
    (16, 16, 3, 8, 7, 2, 3, 1),
    (9, 9, 6, 6, 3, 1, 1, 6),
]


@pytest.fixture
def algorithms(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("convolution_algorithms").ALGORITHMS


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_they_differ_from_float64_by_rounding(algorithms, shape: tuple[int, ...]):
    height, width, channels, outputs, size, stride, zeros, groups = shape
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, height, width, channels)).astype(np.float32)
    kernel = rng.normal(size=(size, size, channels // groups, outputs)).astype(np.float32)
    options = {
        "window_strides": (stride, stride),
        "padding": ((zeros, zeros), (zeros, zeros)),
        "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
        "precision": lax.Precision.HIGHEST,
    }
    with jax.enable_x64(True):
        operands = x.astype(np.float64), kernel.astype(np.float64)
        expected = np.asarray(lax.conv_general_dilated(*operands, feature_group_count=groups, **options))
    assert expected.dtype == np.float64
    difference = {
        name: np.abs(np.asarray(algorithm(x, kernel, groups, **options)) - expected).max()
        for name, algorithm in algorithms.items()
    }
    assert difference.pop("tensorfloat32") > 2e-3  # 10 bits
    assert max(difference.values()) < 2e-4, difference
    assert difference["sums"] < 2e-5, difference
