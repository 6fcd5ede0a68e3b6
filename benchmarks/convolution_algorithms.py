"""2-D convolutions in float32 by the algorithms that a GPU's library chooses from, for a CPU that has only one.

A GPU takes the fastest for each shape, and not always the same. Each is exact in real numbers; what they make of
rounding differs. `deviation.py --convolution NAME` computes everything with one of them.

- sums: the direct one, with the sum over the input channels in reverse;
- winograd: F(4 x 4, 3 x 3) of Lavin and Gray, https://arxiv.org/abs/1509.09308, for 3 x 3 kernels of stride 1 in one
  group, and the direct one for others;
- fft: the product of the transforms over space, for kernels of more than one pixel in one group, and the direct one
  for others;
- tensorfloat32: the direct one, with operands of 10 bits after the point. Not float32: the bars must find it.
"""

from collections.abc import Callable, Iterator
import contextlib
from typing import Any
from unittest import mock

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

_direct = lax.conv_general_dilated  # which `convolving_by` replaces

# Through the points 0, 1, -1, 2, -2 and infinity: of the pixels, of the kernel, and of the product.
_OF_PIXELS = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float32,
)
_OF_KERNEL = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    np.float32,
)
_OF_PRODUCT = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ],
    np.float32,
)


def sums(x: jax.Array, kernel: jax.Array, groups: int, **options: Any) -> jax.Array:
    if groups == 1:
        x, kernel = x[..., ::-1], kernel[:, :, ::-1]
    return _direct(x, kernel, feature_group_count=groups, **options)


def winograd(x: jax.Array, kernel: jax.Array, groups: int, **options: Any) -> jax.Array:
    strides, padding = options["window_strides"], options["padding"]
    if kernel.shape[:2] != (3, 3) or strides != (1, 1) or groups > 1:
        return _direct(x, kernel, feature_group_count=groups, **options)
    (top, _), (left, _) = padding
    height, width = (n + sum(zeros) - 2 for n, zeros in zip(x.shape[1:3], padding, strict=True))
    rows, columns = -(-height // 4), -(-width // 4)  # tiles of 4 x 4 outputs, of 6 x 6 pixels
    down, right = 4 * rows + 2 - x.shape[1] - top, 4 * columns + 2 - x.shape[2] - left
    x = jnp.pad(x, ((0, 0), (top, down), (left, right), (0, 0)))
    tiles = x[:, 4 * np.arange(rows)[:, None] + np.arange(6)][:, :, :, 4 * np.arange(columns)[:, None] + np.arange(6)]
    product = _einsum(
        "brcxyi,xyio->brcxyo",
        _einsum("xp,yq,brpcqi->brcxyi", _OF_PIXELS, _OF_PIXELS, tiles),
        _einsum("xp,yq,pqio->xyio", _OF_KERNEL, _OF_KERNEL, kernel),
    )
    y = _einsum("px,qy,brcxyo->brpcqo", _OF_PRODUCT, _OF_PRODUCT, product)
    return y.reshape(y.shape[0], 4 * rows, 4 * columns, -1)[:, :height, :width]


def fft(x: jax.Array, kernel: jax.Array, groups: int, **options: Any) -> jax.Array:
    if kernel.shape[:2] == (1, 1) or groups > 1:
        return _direct(x, kernel, feature_group_count=groups, **options)
    x = jnp.pad(x, ((0, 0), *options["padding"], (0, 0)))
    size = x.shape[1:3]
    product = _einsum(
        "bhwi,hwio->bhwo",
        jnp.fft.rfft2(x, axes=(1, 2)),
        jnp.conj(jnp.fft.rfft2(kernel, size, axes=(0, 1))),  # a correlation
    )
    y = jnp.fft.irfft2(product, size, axes=(1, 2))
    down, right = options["window_strides"]
    return y[:, : size[0] - kernel.shape[0] + 1 : down, : size[1] - kernel.shape[1] + 1 : right]


def tensorfloat32(x: jax.Array, kernel: jax.Array, groups: int, **options: Any) -> jax.Array:
    x, kernel = (lax.reduce_precision(operand, exponent_bits=8, mantissa_bits=10) for operand in (x, kernel))
    return _direct(x, kernel, feature_group_count=groups, **options)


ALGORITHMS = {function.__name__: function for function in (sums, winograd, fft, tensorfloat32)}


@contextlib.contextmanager
def convolving_by(name: str) -> Iterator[None]:
    """Around what traces a network: as for a GPU in every other respect, convolutions are those of the algorithm."""

    def convolution(x: jax.Array, kernel: jax.Array, *, feature_group_count: int = 1, **options: Any) -> jax.Array:
        return ALGORITHMS[name](x, kernel, feature_group_count, **options)

    def platform_dependent(*operands: Any, default: Callable[..., Any], **_: Any) -> Any:
        return default(*operands)

    jax.clear_caches()
    with (
        mock.patch.object(lax, "conv_general_dilated", convolution),
        mock.patch.object(lax, "platform_dependent", platform_dependent),
    ):
        yield
    jax.clear_caches()


def _einsum(subscripts: str, *operands: Any) -> jax.Array:
    return jnp.einsum(subscripts, *operands, precision=lax.Precision.HIGHEST)
