"""EfficientNet-Lite0 … Lite2: EfficientNets for phones, without squeeze and excitation (Liu, 2020).

Attribute names are those of the published PyTorch weights, so that a parameter's path is its name in the file.

https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
"""

from collections.abc import Callable, Sequence
import functools
import math

from flax import nnx
import jax
from jaxtyping import Array, Float

from castream_jax.backbones.backbone import Backbone, Taps
from castream_jax.backbones.efficientnet import STAGES, Scaling, Stage, multiple_of_8, register_scalings
from castream_jax.layers import BatchNorm, Conv, Sequential, batch_norm, conv_norm, linear

_STEM, _LAST = 32, 1280  # features of the first and of the last convolution, at every scaling
_MEAN, _STD = (127 / 255,) * 3, (128 / 255,) * 3

# The ends of all resolutions, and the features that are pooled.
_RESOLUTIONS = (1, 2, 3, 5, 7, 8)


class InvertedResidual(nnx.Module):
    """1 x 1 expansion, depthwise convolution, 1 x 1 projection, each with BatchNorm, the first two with ReLU6."""

    def __init__(self, in_features: int, out_features: int, stage: Stage, stride: int, rngs: nnx.Rngs):
        inner = in_features * stage.expansion
        self.expands = stage.expansion > 1
        if self.expands:
            self._expand_conv = Conv(in_features, inner, 1, rngs=rngs)
            self._bn0 = _norm(inner, rngs)
        self._depthwise_conv = Conv(
            inner, inner, stage.kernel_size, stride=stride, padding="SAME", groups=inner, rngs=rngs
        )
        self._bn1 = _norm(inner, rngs)
        self._project_conv = Conv(inner, out_features, 1, rngs=rngs)
        self._bn2 = _norm(out_features, rngs)
        self.residual = stride == 1 and in_features == out_features

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        y = jax.nn.relu6(conv_norm(self._expand_conv, self._bn0, x)) if self.expands else x
        y = jax.nn.relu6(conv_norm(self._depthwise_conv, self._bn1, y))
        y = conv_norm(self._project_conv, self._bn2, y)
        return x + y if self.residual else y


class EfficientNetLite(Backbone):
    """Boundaries: 0 after the stem, 1 … 7 after the stages, 8 after the last convolution."""

    def __init__(self, name: str, scaling: Scaling, *, num_classes: int, taps: Taps | None = None, rngs: nnx.Rngs):
        widths = [_STEM, *(multiple_of_8(stage.features * scaling.width) for stage in STAGES)]
        super().__init__(
            name,
            num_classes=num_classes,
            boundary_dims=[*widths, _LAST],
            stride=32,
            taps=taps,
            named_taps={"official": _RESOLUTIONS, "stages": (0, *_RESOLUTIONS)},
            mean=_MEAN,
            std=_STD,
        )
        self._conv_stem = Conv(3, _STEM, 3, stride=2, padding="SAME", rngs=rngs)
        self._bn0 = _norm(_STEM, rngs)
        blocks, depths = [], []
        for number, (stage, in_features, width) in enumerate(zip(STAGES, widths[:-1], widths[1:], strict=True)):
            scaled = 0 < number < len(STAGES) - 1  # the first and the last stage have one block at every scaling
            depths.append(math.ceil(stage.depth * scaling.depth) if scaled else stage.depth)
            blocks.append(InvertedResidual(in_features, width, stage, stage.stride, rngs))
            blocks += [InvertedResidual(width, width, stage, 1, rngs) for _ in range(depths[-1] - 1)]
        self.depths = tuple(depths)
        self._blocks = Sequential(blocks)
        self._conv_head = Conv(widths[-1], _LAST, 1, rngs=rngs)
        self._bn1 = _norm(_LAST, rngs)
        self._fc = linear(_LAST, num_classes, rngs)

    def _parts(self) -> Sequence[Callable[[Array], Array]]:
        def stem(x: Array) -> Array:
            return jax.nn.relu6(conv_norm(self._conv_stem, self._bn0, x))

        def head(x: Array) -> Array:
            return jax.nn.relu6(conv_norm(self._conv_head, self._bn1, x))

        blocks = iter(self._blocks)
        stages = [[next(blocks) for _ in range(depth)] for depth in self.depths]
        return [stem, *(functools.partial(_run, stage) for stage in stages), head]

    def classify(self, representation: Float[Array, "b d"]) -> Float[Array, "b k"]:
        return self._fc(representation)


def _run(blocks: Sequence[Callable[[Array], Array]], x: Array) -> Array:
    return functools.reduce(lambda x, block: block(x), blocks, x)


def _norm(features: int, rngs: nnx.Rngs) -> BatchNorm:
    return batch_norm(features, rngs, epsilon=1e-3, momentum=0.99)


ARCHITECTURES = {
    "efficientnet_lite0": Scaling(1.0, 1.0, 224),
    "efficientnet_lite1": Scaling(1.0, 1.1, 240),
    "efficientnet_lite2": Scaling(1.1, 1.2, 260),
}

register_scalings(EfficientNetLite, ARCHITECTURES)
