"""Layers shared by the backbones: channels-last, with PyTorch's padding and initialisation.

Parameters are float32; every layer computes in the type of its input, so that the trunk's first input decides.

Axes: b image, h w space, i input channel, o output channel.
"""

from typing import Any, Literal, TypeVar

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float

from castream_jax.kernels.convolution import convolution
from castream_jax.kernels.precision import precision
from castream_jax.kernels.product import product

_Arrays = TypeVar("_Arrays", bound=tuple)  # the input and the parameters of a layer, None where it has none

_lecun = nnx.initializers.lecun_normal()
_zeros = nnx.initializers.zeros_init()
_kaiming_fan_out = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nnx.Module):
    """2-D convolution, kernel `[k, k, i / groups, o]`, padded by zeros.

    On every side there are `(k - 1) // 2` of them unless their number is given, as in torchvision. `"SAME"` is
    TensorFlow's padding, whose odd zero at stride 2 comes last, so that feature maps are shifted against torchvision's.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int | Literal["SAME"] | None = None,
        groups: int = 1,
        use_bias: bool = False,
        kernel_init: nnx.Initializer = _kaiming_fan_out,
        rngs: nnx.Rngs,
    ):
        self.stride = stride
        self.padding: int | str = (kernel_size - 1) // 2 if padding is None else padding
        self.groups = groups
        shape = (kernel_size, kernel_size, in_features // groups, out_features)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(out_features)) if use_bias else None

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        y = self.convolve(x, self.kernel[...])
        return y if self.bias is None else y + _like(self.bias[...], y)

    def convolve(self, x: Float[Array, "b h w i"], kernel: Float[Array, "k k j o"]) -> Float[Array, "b h2 w2 o"]:
        """This convolution with another `kernel`, and without bias."""
        kernel = kernel.astype(x.dtype)
        padding = self.padding
        if isinstance(padding, str):
            strides = (self.stride, self.stride)
            height, width = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
            padding = (height, width)
        return convolution(x, kernel, stride=self.stride, padding=padding, groups=self.groups)


class Sequential(nnx.List):
    """Layers one after the other; their numbers are torchvision's, as attribute names are."""

    def __call__(self, x: Array) -> Array:
        for layer in self:
            x = layer(x)
        return x


def identity(x: Array) -> Array:
    """Stands where torchvision has a layer that does nothing here, so that the numbers of its neighbours agree."""
    return x


class BatchNorm(nnx.BatchNorm):
    """`nnx.BatchNorm` whose inference is one multiplication and one addition per channel.

    Attributes:
        folded: whether `conv_norm` multiplies the convolution's kernel instead of its output; None: where it is faster.
    """

    folded: bool | None = None

    def affine(self) -> tuple[Float[Array, " o"], Float[Array, " o"]]:
        """In inference, `x * factor + offset`: the factor and the offset of each channel."""
        assert self.scale is not None
        assert self.bias is not None
        factor = self.scale[...] * lax.rsqrt(self.var[...] + self.epsilon)
        return factor, self.bias[...] - self.mean[...] * factor

    def __call__(self, x: Array, *args: Any, **options: Any) -> Array:
        if not self.use_running_average or args or options:
            return super().__call__(x, *args, **options).astype(x.dtype)
        factor, offset = self.affine()
        return x * _like(factor, x) + _like(offset, x)


def batch_norm(num_features: int, rngs: nnx.Rngs, *, epsilon: float = 1e-5, momentum: float = 0.9) -> BatchNorm:
    """BatchNorm with PyTorch's constants, in inference mode until `.train()` is called on it.

    `momentum` is the share of the old statistics that is kept, one minus PyTorch's.
    """
    return BatchNorm(num_features, use_running_average=True, momentum=momentum, epsilon=epsilon, rngs=rngs)


def conv_norm(conv: Conv, norm: BatchNorm, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
    """`norm(conv(x))` of a convolution without bias; in inference on an accelerator, one convolution.

    There, the kernel is multiplied by BatchNorm's factor, and bias and ReLU can become parts of the convolution. On a
    CPU they cannot, the factor comes along in their pass for nothing, and one over the kernels would be another
    (4 % of ResNet-50 on 16 images). Parameters are the published ones to the bit in either case, whatever is computed
    from them, and so are the fingerprint and every export.
    """
    if not norm.use_running_average or norm.folded is False:
        return norm(conv(x))
    if norm.folded:
        return _folded(conv, norm, x)
    return lax.platform_dependent(x, cpu=lambda x: norm(conv(x)), default=lambda x: _folded(conv, norm, x))


def _folded(conv: Conv, norm: BatchNorm, x: Array) -> Array:
    factor, offset = norm.affine()
    y = conv.convolve(x, conv.kernel[...] * factor[None, None, None])
    return y + _like(offset, y)


class ConvNorm(Sequential):
    """A convolution, its BatchNorm and, where there is a third layer, an activation."""

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        conv, norm, *activation = self
        y = conv_norm(conv, norm, x)
        return activation[0](y) if activation else y


class LayerNorm(nnx.LayerNorm):
    """`nnx.LayerNorm`, in float32 whatever the type of its input and output."""

    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        return super().__call__(x.astype(jnp.float32), mask=mask).astype(x.dtype)


def layer_norm(num_features: int, rngs: nnx.Rngs) -> LayerNorm:
    """LayerNorm over channels; the variance is that of centred values, as in PyTorch."""
    return LayerNorm(num_features, epsilon=1e-6, use_fast_variance=False, rngs=rngs)


def linear(
    in_features: int,
    out_features: int,
    rngs: nnx.Rngs,
    *,
    use_bias: bool = True,
    kernel_init: nnx.Initializer = _lecun,
    bias_init: nnx.Initializer = _zeros,
) -> nnx.Linear:
    """Linear layer, kernel `[i, o]`, that computes in the type of its input."""
    return nnx.Linear(
        in_features,
        out_features,
        use_bias=use_bias,
        kernel_init=kernel_init,
        bias_init=bias_init,
        dot_general=_dot_general,
        promote_dtype=_to_type_of_input,
        rngs=rngs,
    )


def _dot_general(x: Array, kernel: Array, dimension_numbers: Any, **options: Any) -> Array:
    if x.ndim == 2:
        return product(x, kernel)
    options["precision"] = precision()
    return lax.dot_general(x, kernel, dimension_numbers, **options)


def _to_type_of_input(arrays: _Arrays, /, *, dtype: Any = None, inexact: bool = True) -> _Arrays:
    return jax.tree.map(lambda array: array.astype(arrays[0].dtype), arrays)


def _like(per_channel: Float[Array, " d"], x: Float[Array, "*b d"]) -> Float[Array, "*ones d"]:
    """`per_channel` in the type of `x` and with its number of axes."""
    return per_channel.astype(x.dtype).reshape((1,) * (x.ndim - 1) + per_channel.shape)
