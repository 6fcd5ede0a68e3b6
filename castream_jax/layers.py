"""Layers shared by the backbones: channels-last, with PyTorch's padding and initialisation.

Parameters are float32; every layer computes in the type of its input, so that the trunk's first input decides.

Axes: b image, h w space, i input channel, o output channel.
"""

from collections.abc import Iterator
import functools
from typing import Any

from flax import nnx
import jax
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

# float32 is the reference: no TF32 on GPUs, no bfloat16 passes on TPUs. Without effect on bfloat16 operands.
PRECISION = lax.Precision.HIGHEST

_lecun = nnx.initializers.lecun_normal()
_zeros = nnx.initializers.zeros_init()
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
        y = self.convolve(x, self.kernel[...])
        return y if self.bias is None else y + _like(self.bias[...], y)

    def convolve(self, x: Float[Array, "b h w i"], kernel: Float[Array, "k k j o"]) -> Float[Array, "b h2 w2 o"]:
        """This convolution with another `kernel`, and without bias."""
        kernel = kernel.astype(x.dtype)
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
            default=lambda x, kernel: _xla_conv(x, kernel, stride, self.padding, self.groups),
        )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    return _xla_conv(x, kernel, stride, padding)


def _conv_backward(stride: int, padding: int, residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    """Derivatives as convolutions in the layout of the forward pass on a CPU.

    XLA's own ones read the kernel, or the images, with swapped axes. Within a loop its CPU backend has no library for
    these: 20 to 200 times as slow, and all of Opti-CAM six times.
    """

    def in_this_layout(x: Array, kernel: Array, cotangent: Array) -> tuple[Array, Array]:
        sizes = list(zip(x.shape[1:3], cotangent.shape[1:3], kernel.shape[:2], strict=True))
        convolve = functools.partial(
            lax.conv_general_dilated,
            window_strides=(1, 1),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=PRECISION,
        )
        # From n pixels, a window of k gives m; what a window of (m - 1) stride + 1 gives must be k, and the reverse.
        of_kernel = [(padding, (m - 1) * stride + k - n - padding) for n, m, k in sizes]
        of_input = [(k - 1 - padding, n - 1 - (m - 1) * stride + padding) for n, m, k in sizes]
        return (
            convolve(cotangent, kernel[::-1, ::-1].swapaxes(2, 3), padding=of_input, lhs_dilation=(stride, stride)),
            convolve(
                x.transpose(3, 1, 2, 0),
                cotangent.transpose(1, 2, 0, 3),
                padding=of_kernel,
                rhs_dilation=(stride, stride),
            ).transpose(1, 2, 0, 3),
        )

    def xlas_own(x: Array, kernel: Array, cotangent: Array) -> tuple[Array, Array]:
        return jax.vjp(lambda x, kernel: _xla_conv(x, kernel, stride, padding), x, kernel)[1](cotangent)

    return lax.platform_dependent(*residuals, cotangent, cpu=in_this_layout, default=xlas_own)


_conv.defvjp(
    lambda x, kernel, stride, padding: (_conv(x, kernel, stride, padding), (x, kernel)),
    _conv_backward,
)


def _xla_conv(x: Array, kernel: Array, stride: int, padding: int, groups: int = 1) -> Array:
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
    return computed_once(functools.reduce(jnp.add, (a * weight for a, weight in zip(shifted, weights, strict=True))))


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


def computed_once(x: Array) -> Array:
    """`x`, which XLA computes once on a CPU, and not again in each operation that reads it.

    XLA fuses what is element by element, and sums of shifted images, into whatever reads them. On a CPU the computation
    that this repeats takes longer than the pass over memory that it saves. XLA's CPU backend drops
    `lax.optimization_barrier` before it fuses; it does not fuse across a call that must not be inlined.
    """
    return lax.platform_dependent(x, cpu=_not_inlined, default=identity)


def _not_inlined(x: Array) -> Array:
    with set_xla_metadata(inlineable="false"):
        return jax.jit(identity)(x)


def gelu(x: Array) -> Array:
    """`x Phi(x)`, exact; by the error function as in PyTorch, faster on a CPU than by its complement as in `jax.nn`."""
    return 0.5 * x * (1 + lax.erf(x * np.sqrt(0.5).astype(x.dtype)))


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


@jax.custom_vjp
def product(x: Float[Array, "b i"], kernel: Float[Array, "i o"]) -> Float[Array, "b o"]:
    """`x @ kernel`; the derivative is that of one row per image, `times_transposed`."""
    return jnp.matmul(x, kernel, precision=PRECISION)


def _product_backward(residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    return times_transposed(cotangent, kernel), jnp.einsum("bi,bo->io", x, cotangent, precision=PRECISION)


product.defvjp(lambda x, kernel: (product(x, kernel), (x, kernel)), _product_backward)


def times_transposed(y: Float[Array, "b o"], kernel: Float[Array, "i o"]) -> Float[Array, "b i"]:
    """`y @ kernel.T` for few rows.

    XLA's CPU backend first copies all of a transposed operand: for 16 rows and 2048 x 2048 weights, that is nine tenths
    of the time. As a batch of products with parts of the kernel it takes a fifth.
    """
    plain = functools.partial(jnp.einsum, "bo,io->bi", precision=PRECISION)
    rows, parts = kernel.shape[0], 8
    if rows % parts:
        return plain(y, kernel)

    def in_parts(y: Array, kernel: Array) -> Array:
        of_parts = jnp.broadcast_to(y[None], (parts, *y.shape)), kernel.reshape(parts, rows // parts, -1)
        return jnp.einsum("pbo,pio->bpi", *of_parts, precision=PRECISION).reshape(-1, rows)

    return lax.platform_dependent(y, kernel, cpu=in_parts, default=plain)


class Linear(nnx.Linear):
    """`nnx.Linear` in the type of its input."""

    def __call__(self, inputs: Float[Array, "*b i"], out_sharding: Any = None) -> Float[Array, "*b o"]:
        kernel = self.kernel[...].astype(inputs.dtype)
        y = product(inputs, kernel) if inputs.ndim == 2 else jnp.matmul(inputs, kernel, precision=PRECISION)
        return y if self.bias is None else y + _like(self.bias[...], y)


def linear(
    in_features: int,
    out_features: int,
    rngs: nnx.Rngs,
    *,
    use_bias: bool = True,
    kernel_init: nnx.Initializer = _lecun,
    bias_init: nnx.Initializer = _zeros,
) -> Linear:
    """Linear layer, kernel `[i, o]`."""
    return Linear(
        in_features,
        out_features,
        use_bias=use_bias,
        kernel_init=kernel_init,
        bias_init=bias_init,
        precision=PRECISION,
        rngs=rngs,
    )


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """3 x 3 maximum, stride 2, one pixel of padding: the end of torchvision's ResNet stem."""
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    # `reduce_window` takes 1.6 times as long on a CPU.
    return computed_once(functools.reduce(jnp.maximum, _shifted(x, 3, 2)))


def _like(per_channel: Float[Array, " d"], x: Float[Array, "*b d"]) -> Float[Array, "*ones d"]:
    """`per_channel` in the type of `x` and with its number of axes."""
    return per_channel.astype(x.dtype).reshape((1,) * (x.ndim - 1) + per_channel.shape)
