"""torchvision's EfficientNets B0 … B7 (Tan and Le, 2019).

Attribute names are torchvision's, so that a parameter's path is its name in a `state_dict`.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import math
from typing import NamedTuple

from flax import nnx
import jax
from jaxtyping import Array, Float

from castream_jax.backbones.backbone import Backbone, Taps
from castream_jax.backbones.registry import register_backbone
from castream_jax.layers import Conv, ConvNorm, Sequential, batch_norm, identity, linear


class Scaling(NamedTuple):
    """What sets one EfficientNet apart: factors of width and depth, input size, epsilon and momentum of BatchNorm."""

    width: float
    depth: float
    input_size: int
    epsilon: float = 1e-5
    momentum: float = 0.9


class Stage(NamedTuple):
    """A stage of EfficientNet-B0 (its Table 1)."""

    expansion: int
    kernel_size: int
    stride: int
    features: int
    depth: int


_STEM_WIDTH = 32
STAGES = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)


class SqueezeExcitation(nnx.Module):
    """Multiplies each channel by a weight in (0, 1) computed from all channels' means (Hu et al., 2018)."""

    def __init__(self, features: int, squeezed: int, rngs: nnx.Rngs):
        self.fc1 = Conv(features, squeezed, 1, use_bias=True, rngs=rngs)
        self.fc2 = Conv(squeezed, features, 1, use_bias=True, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
        means = x.mean((1, 2), keepdims=True)
        return x * jax.nn.sigmoid(self.fc2(jax.nn.silu(self.fc1(means))))


class MBConv(nnx.Module):
    """Inverted residual: 1 x 1 expansion, depthwise convolution, squeeze and excitation, 1 x 1 projection."""

    def __init__(
        self, in_features: int, out_features: int, stage: Stage, stride: int, scaling: Scaling, rngs: nnx.Rngs
    ):
        inner = in_features * stage.expansion
        normalised = functools.partial(_conv_norm, scaling=scaling, rngs=rngs)
        layers = [] if inner == in_features else [normalised(in_features, inner, 1)]
        layers += [
            normalised(inner, inner, stage.kernel_size, stride=stride, groups=inner),
            SqueezeExcitation(inner, max(1, in_features // 4), rngs),
            normalised(inner, out_features, 1, activation=False),
        ]
        self.block = Sequential(layers)
        self.residual = stride == 1 and in_features == out_features

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        y = self.block(x)
        return x + y if self.residual else y


class EfficientNet(Backbone):
    """Boundaries: 0 after the stem, 1 … 7 after the stages, 8 after the last convolution: torchvision's `features`.

    The official code reads them all.
    """

    def __init__(self, name: str, scaling: Scaling, *, num_classes: int, taps: Taps | None = None, rngs: nnx.Rngs):
        widths = [
            multiple_of_8(features * scaling.width) for features in (_STEM_WIDTH, *(stage.features for stage in STAGES))
        ]
        dims = [*widths, 4 * widths[-1]]
        super().__init__(name, num_classes=num_classes, boundary_dims=dims, stride=32, taps=taps)
        normalised = functools.partial(_conv_norm, scaling=scaling, rngs=rngs)
        features: list[Sequential] = [normalised(3, widths[0], 3, stride=2)]
        for stage, in_features, width in zip(STAGES, widths[:-1], widths[1:], strict=True):
            blocks = [MBConv(in_features, width, stage, stage.stride, scaling, rngs)]
            extra = math.ceil(stage.depth * scaling.depth) - 1
            blocks += [MBConv(width, width, stage, 1, scaling, rngs) for _ in range(extra)]
            features.append(Sequential(blocks))
        self.features = Sequential([*features, normalised(widths[-1], dims[-1], 1)])
        self.classifier = Sequential([identity, linear(dims[-1], num_classes, rngs)])  # dropout, at inference

    def _parts(self) -> Sequence[Callable[[Array], Array]]:
        return list(self.features)

    def classify(self, representation: Float[Array, "b d"]) -> Float[Array, "b k"]:
        return self.classifier(representation)


def _conv_norm(
    in_features: int,
    out_features: int,
    kernel_size: int,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: bool = True,
    scaling: Scaling,
    rngs: nnx.Rngs,
) -> ConvNorm:
    """Convolution, BatchNorm and, unless told otherwise, SiLU."""
    conv = Conv(in_features, out_features, kernel_size, stride=stride, groups=groups, rngs=rngs)
    norm = batch_norm(out_features, rngs, epsilon=scaling.epsilon, momentum=scaling.momentum)
    return ConvNorm([conv, norm, jax.nn.silu] if activation else [conv, norm])


def multiple_of_8(width: float) -> int:
    """The nearest multiple of 8, or the next one if that is less than 90 % of `width`."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * width else nearest + 8


ARCHITECTURES = {
    "efficientnet_b0": Scaling(1.0, 1.0, 224),
    "efficientnet_b1": Scaling(1.0, 1.1, 240),
    "efficientnet_b2": Scaling(1.1, 1.2, 288),
    "efficientnet_b3": Scaling(1.2, 1.4, 300),
    "efficientnet_b4": Scaling(1.4, 1.8, 380),
    "efficientnet_b5": Scaling(1.6, 2.2, 456, epsilon=1e-3, momentum=0.99),
    "efficientnet_b6": Scaling(1.8, 2.6, 528, epsilon=1e-3, momentum=0.99),
    "efficientnet_b7": Scaling(2.0, 3.1, 600, epsilon=1e-3, momentum=0.99),
}


def register_scalings(network: Callable[..., Backbone], scalings: Mapping[str, Scaling]) -> None:
    """Registers a network at each of its scalings, by their names, with the classes of ImageNet."""
    for name, scaling in scalings.items():
        build = functools.partial(network, name, scaling)
        register_backbone(name, num_classes=1000, input_size=scaling.input_size)(build)


register_scalings(EfficientNet, ARCHITECTURES)
