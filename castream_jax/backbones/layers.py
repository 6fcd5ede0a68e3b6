"""Layers shared by the backbones: channels-last, with PyTorch's padding and initialisation.

Axes: b image, h w space, i input channel, o output channel.
"""

from collections.abc import Iterator
import functools
from typing import Any

from flax import nnx
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

# float32 is the reference: no TF32 on GPUs, no bfloat16 passes on TPUs. Without effect on bfloat16 operands.
PRECISION = lax.Precision.HIGHEST

_lecun = nnx.initializers.lecun_normal()
_kaiming_fan_out = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nnx.Module):
    """2-D convolution, kernel `[k, k, i / groups, o]`, padded by the same number of zeros on every side.

    The padding is `(k - 1) // 2` unless it is given, as in torchvision: `SAME` is asymmetric at stride 2 and would
    shift every feature map against PyTorch's.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        use_bias: bool = False,
        kernel_init: nnx.Initializer = _kaiming_fan_out,
        rngs: nnx.Rngs,
    ):
        self.stride = stride
        self.padding = (kernel_size - 1) // 2 if padding is None else padding
        self.groups = groups
        shape = (kernel_size, kernel_size, in_features // groups, out_features)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(out_features)) if use_bias else None

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        y = self._convolve(x, self.kernel[...])
        return y if self.bias is None else y + self.bias[...][None, None, None]

    def _convolve(self, x: Float[Array, "b h w i"], kernel: Float[Array, "k k j o"]) -> Float[Array, "b h2 w2 o"]:
        size, stride = kernel.shape[0], self.stride
        if size == 1:  # a matrix product: 1.4 x faster for ResNet-50 on a CPU, the same elsewhere
            x = x[:, ::stride, ::stride]
            return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())), precision=PRECISION)
        if self.groups == 1:
            return _conv(x, kernel, stride, self.padding)
        # XLA's grouped convolution is made for accelerators: on a CPU it is 4 to 40 times slower than its parts.
        depthwise = self.groups == x.shape[-1] == kernel.shape[-1]
        return lax.platform_dependent(
            x,
            kernel,
            cpu=lambda x, kernel: (
                _shifted_sum(x, kernel, stride, self.padding)
                if depthwise
                else _conv_per_group(x, kernel, stride, self.padding, self.groups)
            ),
            default=lambda x, kernel: _conv(x, kernel, stride, self.padding, self.groups),
        )


def _conv(x: Array, kernel: Array, stride: int, padding: int, groups: int = 1) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=PRECISION,
    )


def _shifted_sum(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """Depthwise convolution as k x k multiply-adds of shifted images, which XLA fuses into one loop."""
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    weights = kernel.reshape(-1, 1, 1, 1, kernel.shape[-1])
    shifted = _shifted(x, kernel.shape[0], stride)
    return functools.reduce(jnp.add, (image * weight for image, weight in zip(shifted, weights, strict=True)))


def _shifted(x: Array, size: int, stride: int) -> Iterator[Array]:
    """What each of the `size` x `size` positions of a sliding window sees, row by row."""
    batch, height, width, features = x.shape
    for i in range(size):
        for j in range(size):
            end = (batch, i + height - size + 1, j + width - size + 1, features)
            yield lax.slice(x, (0, i, j, 0), end, (1, stride, stride, 1))


def _conv_per_group(x: Array, kernel: Array, stride: int, padding: int, groups: int) -> Array:
    parts = zip(jnp.split(x, groups, axis=3), jnp.split(kernel, groups, axis=3), strict=True)
    return jnp.concatenate([_conv(part, part_kernel, stride, padding) for part, part_kernel in parts], axis=3)


class Sequential(nnx.List):
    """Layers one after the other; their numbers are torchvision's, as attribute names are."""

    def __call__(self, x: Array) -> Array:
        for layer in self:
            x = layer(x)
        return x


def identity(x: Array) -> Array:
    """Stands where torchvision has a layer that does nothing here, so that the numbers of its neighbours agree."""
    return x


def gelu(x: Array) -> Array:
    """`x Phi(x)`, exact; by the error function as in PyTorch, faster on a CPU than by its complement as in `jax.nn`."""
    return 0.5 * x * (1 + lax.erf(x * np.sqrt(0.5).astype(x.dtype)))


class BatchNorm(nnx.BatchNorm):
    """`nnx.BatchNorm` that is one multiply-add per value in inference, as in PyTorch: 2 % of a ResNet-50 on a CPU."""

    def __call__(self, x: Array, *args: Any, **options: Any) -> Array:
        if not self.use_running_average or args or options:
            return super().__call__(x, *args, **options)
        assert self.scale is not None
        assert self.bias is not None
        factor = self.scale[...] * lax.rsqrt(self.var[...] + self.epsilon)
        offset = self.bias[...] - self.mean[...] * factor
        return x * factor[None, None, None] + offset[None, None, None]


def batch_norm(num_features: int, rngs: nnx.Rngs, *, epsilon: float = 1e-5, momentum: float = 0.9) -> BatchNorm:
    """BatchNorm with PyTorch's constants, in inference mode until `.train()` is called on it.

    `momentum` is the share of the old statistics that is kept, one minus PyTorch's.
    """
    return BatchNorm(num_features, use_running_average=True, momentum=momentum, epsilon=epsilon, rngs=rngs)


def layer_norm(num_features: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm over channels; the variance is that of centred values, as in PyTorch."""
    return nnx.LayerNorm(num_features, epsilon=1e-6, use_fast_variance=False, rngs=rngs)


def linear(
    in_features: int,
    out_features: int,
    rngs: nnx.Rngs,
    *,
    kernel_init: nnx.Initializer = _lecun,
) -> nnx.Linear:
    """Linear layer, kernel `[i, o]`."""
    return nnx.Linear(in_features, out_features, kernel_init=kernel_init, precision=PRECISION, rngs=rngs)


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """3 x 3 maximum, stride 2, one pixel of padding: the end of torchvision's ResNet stem."""
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    return functools.reduce(jnp.maximum, _shifted(x, 3, 2))  # `reduce_window` takes 1.6 times as long on a CPU
