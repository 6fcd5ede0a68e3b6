"""Operations of PyTorch on images whose channels are the last axis in memory.

PyTorch's images are `[B, C, H, W]`; convolutions are fastest, and are written in `castream_jax.kernels`, for
`[B, H, W, C]`. A `ChannelsLast` stands for the first and holds the second. Operations that are known here take and give
it; for any other, it becomes what it stands for, and torchax's operation does the rest.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array

from castream_jax.importing.torchax_operations import jax_operation
from castream_jax.kernels.convolution import convolution
from castream_jax.kernels.max_pooling import max_pool
from castream_jax.kernels.precision import PRECISION

_LAYOUT = ("NHWC", "HWIO", "NHWC")


class Kernel(NamedTuple):
    """The kernel `[k, k, i, o]` of a convolution, instead of `[o, i, k, k]`."""

    array: Array


class ChannelsLast(NamedTuple):
    """Images `[B, H, W, C]` instead of `[B, C, H, W]`."""

    array: Array


def to_torch(value: Any) -> Any:
    """The array as PyTorch has it; anything else as it is."""
    if isinstance(value, Kernel):
        return value.array.transpose(3, 2, 0, 1)
    return value.array.transpose(0, 3, 1, 2) if isinstance(value, ChannelsLast) else value


def to_last(value: Any) -> Array:
    """`[B, H, W, C]` of images in either form."""
    return value.array if isinstance(value, ChannelsLast) else value.transpose(0, 2, 3, 1)


def operate(target: Any, *arguments: Any, **options: Any) -> Any:
    """The result of one of PyTorch's operations."""
    if not hasattr(target, "overloadpacket"):  # of Python, on sizes
        return target(*arguments, **options)
    name = str(target.overloadpacket).removeprefix("aten.")
    if name in _OURS:
        result = _OURS[name](*arguments, **options)
        if result is not NotImplemented:
            return result
    if name in _EACH and any(map(_is_last, arguments)):
        return ChannelsLast(jax_operation(target)(*map(_aligned, arguments), **options))
    arguments, options = jax.tree.map(to_torch, (arguments, options), is_leaf=_is_ours)
    return jax_operation(target)(*arguments, **options)


def _is_last(value: Any) -> bool:
    return isinstance(value, ChannelsLast)


def _is_ours(value: Any) -> bool:
    return isinstance(value, ChannelsLast | Kernel)


def _convolution(
    x: Any,
    weight: Any,
    bias: Array | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Any:
    if transposed or to_torch(weight).ndim != 4:
        return NotImplemented
    images = to_last(x)
    kernel = weight.array if isinstance(weight, Kernel) else weight.transpose(2, 3, 1, 0)
    kernel = kernel.astype(images.dtype)
    padding, stride, dilation = (_pair(values) for values in (padding, stride, dilation))
    pads = ((padding[0], padding[0]), (padding[1], padding[1]))
    if stride[0] == stride[1] and dilation == (1, 1) and kernel.shape[0] == kernel.shape[1]:
        y = convolution(images, kernel, stride=stride[0], padding=pads, groups=groups)
    else:
        y = lax.conv_general_dilated(
            images,
            kernel,
            stride,
            pads,
            rhs_dilation=dilation,
            dimension_numbers=_LAYOUT,
            feature_group_count=groups,
            precision=PRECISION,
        )
    return ChannelsLast(y if bias is None else y + _per_channel(bias, y))


def _pair(values: Sequence[int]) -> tuple[int, int]:
    first, *rest = values
    return first, (rest[0] if rest else first)


def _per_channel(values: Array, like: Array) -> Array:
    return values.astype(like.dtype).reshape(1, 1, 1, -1)


def _batch_norm(
    x: Any, weight: Array | None, bias: Array | None, mean: Array, var: Array, momentum: float, epsilon: float
) -> Any:
    if not isinstance(x, ChannelsLast):
        return NotImplemented
    factor = lax.rsqrt(var.astype(jnp.float32) + epsilon)
    factor = factor if weight is None else factor * weight
    offset = -mean * factor if bias is None else bias - mean * factor
    y = x.array * _per_channel(factor, x.array) + _per_channel(offset, x.array)
    return ChannelsLast(y), None, None


def _layer_norm(x: Any, shape: Sequence[int], weight: Array | None, bias: Array | None, epsilon: float) -> Any:
    if isinstance(x, ChannelsLast):
        return NotImplemented
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(axes, keepdims=True)
    y = centred * lax.rsqrt((centred**2).mean(axes, keepdims=True) + epsilon)
    y = y if weight is None else y * jnp.broadcast_to(weight, y.shape)
    y = y if bias is None else y + jnp.broadcast_to(bias, y.shape)
    return y.astype(x.dtype), None, None


def _max_pool(
    x: Any,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> Any:
    if not isinstance(x, ChannelsLast) or ceil_mode or _pair(dilation) != (1, 1):
        return NotImplemented
    if (_pair(kernel), _pair(stride or kernel), _pair(padding)) == ((3, 3), (2, 2), (1, 1)):
        return ChannelsLast(max_pool(x.array)), None
    return ChannelsLast(_windows(x.array, -jnp.inf, lax.max, kernel, stride, padding)), None


def _avg_pool(
    x: Any,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    if not isinstance(x, ChannelsLast) or divisor_override is not None or any(padding):
        return NotImplemented
    steps, sizes = _pair(stride or kernel), _pair(kernel)
    if any((size - k) % step for size, k, step in zip(x.array.shape[1:3], sizes, steps, strict=True)):
        return NotImplemented
    total = _windows(x.array, 0.0, lax.add, kernel, stride, padding)
    return ChannelsLast(total / (sizes[0] * sizes[1]))


def _windows(
    x: Array, start: float, combine: Any, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> Array:
    (top, left), steps = _pair(padding), _pair(stride or kernel)
    pads = ((0, 0), (top, top), (left, left), (0, 0))
    return lax.reduce_window(x, start, combine, (1, *_pair(kernel), 1), (1, *steps, 1), pads)


def _mean(x: Any, axes: Sequence[int] | None = None, keepdim: bool = False, **options: Any) -> Any:
    if not isinstance(x, ChannelsLast) or options or axes is None or sorted(axis % 4 for axis in axes) != [2, 3]:
        return NotImplemented
    mean = x.array.mean((1, 2), keepdims=keepdim)
    return ChannelsLast(mean) if keepdim else mean


def _permute(x: Any, order: Sequence[int]) -> Any:
    order = [axis % len(order) for axis in order]
    if isinstance(x, ChannelsLast) and order == [0, 2, 3, 1]:
        return x.array
    if not isinstance(x, ChannelsLast) and order == [0, 3, 1, 2]:
        return ChannelsLast(x)
    return NotImplemented


def _concatenate(parts: Sequence[Any], axis: int = 0) -> Any:
    if not any(map(_is_last, parts)) or any(to_torch(part).ndim != 4 for part in parts):
        return NotImplemented
    ours = {0: 0, 1: 3, 2: 1, 3: 2}[axis % 4]
    return ChannelsLast(jnp.concatenate([to_last(part) for part in parts], ours))


def _addmm(bias: Array, x: Array, weight: Array, **options: Any) -> Any:
    if options:
        return NotImplemented
    y = jnp.matmul(x, weight.astype(x.dtype), precision=PRECISION)
    return y + jnp.broadcast_to(bias.astype(x.dtype), y.shape)


def _aligned(argument: Any) -> Any:
    """An argument as it is broadcast against `[B, H, W, C]`."""
    if isinstance(argument, ChannelsLast):
        return argument.array
    if getattr(argument, "ndim", 0) == 0:
        return argument
    return argument.reshape((1,) * (4 - argument.ndim) + argument.shape).transpose(0, 2, 3, 1)


# On every number by itself, of images or of images and numbers.
_EACH = {
    *("relu", "sigmoid", "silu", "gelu", "hardtanh", "hardswish", "hardsigmoid", "tanh", "leaky_relu", "elu", "neg"),
    *("clone", "alias", "exp", "rsqrt", "sqrt", "erf", "mish", "softplus", "add", "mul", "sub", "div"),
    *("maximum", "minimum", "clamp", "pow", "abs", "where"),
}
_OURS: dict[str, Callable[..., Any]] = {
    "convolution": _convolution,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "native_layer_norm": _layer_norm,
    "max_pool2d_with_indices": _max_pool,
    "avg_pool2d": _avg_pool,
    "mean": _mean,
    "permute": _permute,
    "cat": _concatenate,
    "addmm": _addmm,
}
