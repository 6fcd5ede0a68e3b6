"""torchvision's ResNets (He et al., 2016; stride in the 3 x 3 convolution, "v1.5"), ResNeXts and Wide ResNets.

Attribute names are torchvision's, so that a parameter's path is its name in a `state_dict`.
"""

from collections.abc import Callable, Sequence

from flax import nnx
import jax
from jaxtyping import Array, Float

from castream_jax.backbones.backbone import Backbone, Taps
from castream_jax.backbones.registry import register_backbone
from castream_jax.kernels.computed_once import computed_once
from castream_jax.kernels.max_pooling import max_pool
from castream_jax.layers import Conv, ConvNorm, Sequential, batch_norm, conv_norm, linear


class BasicBlock(nnx.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_features: int, width: int, *, stride: int, rngs: nnx.Rngs):
        self.conv1 = Conv(in_features, width, 3, stride=stride, rngs=rngs)
        self.bn1 = batch_norm(width, rngs)
        self.conv2 = Conv(width, width, 3, rngs=rngs)
        self.bn2 = batch_norm(width, rngs)
        self.downsample = projection_shortcut(in_features, width, stride, rngs)

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        y = jax.nn.relu(conv_norm(self.conv1, self.bn1, x))
        y = conv_norm(self.conv2, self.bn2, y)
        return computed_once(jax.nn.relu(y + shortcut(self.downsample, x)))


class Bottleneck(nnx.Module):
    """1 x 1, 3 x 3, 1 x 1 convolutions and a shortcut.

    The 3 x 3 convolution has `groups` groups of `width_per_group` channels for every 64 of `width`: several groups
    in a ResNeXt (Xie et al., 2017), a single wider one in a Wide ResNet (Zagoruyko and Komodakis, 2016).
    """

    expansion = 4

    def __init__(
        self,
        in_features: int,
        width: int,
        *,
        stride: int,
        groups: int = 1,
        width_per_group: int = 64,
        rngs: nnx.Rngs,
    ):
        out_features = width * self.expansion
        inner = width * width_per_group // 64 * groups
        self.conv1 = Conv(in_features, inner, 1, rngs=rngs)
        self.bn1 = batch_norm(inner, rngs)
        self.conv2 = Conv(inner, inner, 3, stride=stride, groups=groups, rngs=rngs)
        self.bn2 = batch_norm(inner, rngs)
        self.conv3 = Conv(inner, out_features, 1, rngs=rngs)
        self.bn3 = batch_norm(out_features, rngs)
        self.downsample = projection_shortcut(in_features, out_features, stride, rngs)

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        y = jax.nn.relu(conv_norm(self.conv1, self.bn1, x))
        y = computed_once(jax.nn.relu(conv_norm(self.conv2, self.bn2, y)))
        y = conv_norm(self.conv3, self.bn3, y)
        return computed_once(jax.nn.relu(y + shortcut(self.downsample, x)))


def projection_shortcut(in_features: int, out_features: int, stride: int, rngs: nnx.Rngs) -> ConvNorm | None:
    """1 x 1 convolution and BatchNorm where the block changes shape (option B), nothing elsewhere."""
    if stride == 1 and in_features == out_features:
        return None
    conv = Conv(in_features, out_features, 1, stride=stride, rngs=rngs)
    return ConvNorm([conv, batch_norm(out_features, rngs)])


def shortcut(downsample: ConvNorm | None, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
    """What is added to the residual branch."""
    return x if downsample is None else downsample(x)


class ResNet(Backbone):
    """Boundaries: 0 after the stem's max-pool, 1 … 4 after the four residual stages."""

    def __init__(
        self,
        name: str,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        *,
        num_classes: int,
        taps: Taps | None = None,
        rngs: nnx.Rngs,
        **block_options: int,
    ):
        widths = (64, 128, 256, 512)
        dims = (64, *(width * block.expansion for width in widths))
        super().__init__(name, num_classes=num_classes, boundary_dims=dims, stride=32, taps=taps)
        self.conv1 = Conv(3, 64, 7, stride=2, rngs=rngs)
        self.bn1 = batch_norm(64, rngs)
        for number, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
            features, stride = dims[number - 1], 1 if number == 1 else 2
            blocks = [block(features, width, stride=stride, rngs=rngs, **block_options)]
            blocks += [block(dims[number], width, stride=1, rngs=rngs, **block_options) for _ in range(depth - 1)]
            setattr(self, f"layer{number}", Sequential(blocks))
        self.fc = linear(dims[-1], num_classes, rngs)

    def _parts(self) -> Sequence[Callable[[Array], Array]]:
        return [self._stem, *(getattr(self, f"layer{number}") for number in range(1, 5))]

    def _stem(self, inputs: Float[Array, "b h w 3"]) -> Float[Array, "b h4 w4 64"]:
        return max_pool(jax.nn.relu(conv_norm(self.conv1, self.bn1, inputs)))

    def classify(self, representation: Float[Array, "b d"]) -> Float[Array, "b k"]:
        return self.fc(representation)


# name -> block, blocks per stage, options of the block
ARCHITECTURES: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...], dict[str, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2), {}),
    "resnet34": (BasicBlock, (3, 4, 6, 3), {}),
    "resnet50": (Bottleneck, (3, 4, 6, 3), {}),
    "resnet101": (Bottleneck, (3, 4, 23, 3), {}),
    "resnet152": (Bottleneck, (3, 8, 36, 3), {}),
    "resnext50_32x4d": (Bottleneck, (3, 4, 6, 3), {"groups": 32, "width_per_group": 4}),
    "resnext101_32x8d": (Bottleneck, (3, 4, 23, 3), {"groups": 32, "width_per_group": 8}),
    "wide_resnet50_2": (Bottleneck, (3, 4, 6, 3), {"width_per_group": 128}),
    "wide_resnet101_2": (Bottleneck, (3, 4, 23, 3), {"width_per_group": 128}),
}


def _register(name: str) -> None:
    block, depths, options = ARCHITECTURES[name]

    @register_backbone(name, num_classes=1000, input_size=224)
    def build(num_classes: int, rngs: nnx.Rngs, taps: Taps | None = None) -> ResNet:
        return ResNet(name, block, depths, num_classes=num_classes, taps=taps, rngs=rngs, **options)


for _name in ARCHITECTURES:
    _register(_name)
