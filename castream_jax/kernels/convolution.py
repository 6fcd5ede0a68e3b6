"""2-D convolution of images by `[k, k, i / groups, o]` kernels, padded by zeros.

Axes: b image, h w space, i input channel, o output channel, j = i / groups input channels of a group.
"""

import functools
from typing import TypeAlias

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float

from castream_jax.kernels.computed_once import computed_once
from castream_jax.kernels.precision import precision
from castream_jax.kernels.shifted_images import shifted_images

_LAYOUT = ("NHWC", "HWIO", "NHWC")

# Zeros before and after, of height and width.
Padding: TypeAlias = tuple[tuple[int, int], tuple[int, int]]


def textbook(
    x: Float[Array, "b h w i"], kernel: Float[Array, "k k j o"], stride: int, padding: Padding, groups: int
) -> Float[Array, "b h2 w2 o"]:
    """XLA's own."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=padding,
        dimension_numbers=_LAYOUT,
        feature_group_count=groups,
        precision=precision(),
    )


def on_cpu(
    x: Float[Array, "b h w i"], kernel: Float[Array, "k k j o"], stride: int, padding: Padding, groups: int
) -> Float[Array, "b h2 w2 o"]:
    """The textbook's with derivatives of our own, or, in several groups, parts of it.

    XLA's grouped convolution is made for accelerators: on a CPU it is 4 to 40 times slower than its parts.
    """
    if groups == 1:
        return _one_group(x, kernel, stride, padding)
    if groups == x.shape[-1] == kernel.shape[-1]:
        return _depthwise(x, kernel, stride, padding)
    parts = zip(jnp.split(x, groups, axis=3), jnp.split(kernel, groups, axis=3), strict=True)
    return jnp.concatenate([_one_group(part, part_kernel, stride, padding) for part, part_kernel in parts], axis=3)


def convolution(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "k k j o"],
    *,
    stride: int = 1,
    padding: int | Padding = 0,
    groups: int = 1,
) -> Float[Array, "b h2 w2 o"]:
    """The convolution of `x` by `kernel`; a number as `padding` is that of zeros on every side."""
    if isinstance(padding, int):
        padding = ((padding, padding), (padding, padding))
    if kernel.shape[0] == groups == 1 and not any(map(any, padding)):
        # A matrix product on every platform: 1.4 x faster for ResNet-50 on a CPU, the same elsewhere.
        x = x[:, ::stride, ::stride]
        return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())), precision=precision())
    options = {"stride": stride, "padding": padding, "groups": groups}
    return lax.platform_dependent(
        x, kernel, cpu=functools.partial(on_cpu, **options), default=functools.partial(textbook, **options)
    )


def _depthwise(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """k x k multiply-adds of shifted images, which XLA fuses into one loop."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    weights = kernel.reshape(-1, 1, 1, 1, kernel.shape[-1])
    shifted = shifted_images(x, kernel.shape[0], stride)
    return computed_once(functools.reduce(jnp.add, (a * weight for a, weight in zip(shifted, weights, strict=True))))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _one_group(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    return textbook(x, kernel, stride, padding, groups=1)


def _backward(stride: int, padding: Padding, residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    """Derivatives as convolutions in the layout of the forward pass.

    XLA's own ones read the kernel, or the images, with swapped axes. Within a loop its CPU backend has no library for
    these: 20 to 200 times as slow, and all of Opti-CAM six times.
    """
    x, kernel = residuals
    before = [low for low, _ in padding]
    sizes = list(zip(before, x.shape[1:3], cotangent.shape[1:3], kernel.shape[:2], strict=True))
    # From n pixels, a window of k gives m; what a window of (m - 1) stride + 1 gives must be k, and the reverse.
    of_kernel = [(low, (m - 1) * stride + k - n - low) for low, n, m, k in sizes]
    of_input = [(k - 1 - low, n - 1 - (m - 1) * stride + low) for low, n, m, k in sizes]
    convolve = functools.partial(
        lax.conv_general_dilated, window_strides=(1, 1), dimension_numbers=_LAYOUT, precision=precision()
    )
    return (
        convolve(cotangent, kernel[::-1, ::-1].swapaxes(2, 3), padding=of_input, lhs_dilation=(stride, stride)),
        convolve(
            x.transpose(3, 1, 2, 0), cotangent.transpose(1, 2, 0, 3), padding=of_kernel, rhs_dilation=(stride, stride)
        ).transpose(1, 2, 0, 3),
    )


_one_group.defvjp(
    lambda x, kernel, stride, padding: (_one_group(x, kernel, stride, padding), (x, kernel)),
    _backward,
)
