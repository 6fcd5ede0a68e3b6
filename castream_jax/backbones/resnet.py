"""torchvision's ResNets (He et al., 2016; stride in the 3 x 3 convolution, "v1.5").

Attribute names are torchvision's, so that a parameter's path is its name in a `state_dict`.
"""

from collections.abc import Sequence

from flax import nnx
import jax
from jaxtyping import Array, Float

from castream_jax.backbones.backbone import Backbone
from castream_jax.backbones.layers import Conv, batch_norm, linear, max_pool
from castream_jax.backbones.registry import register_backbone


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
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return jax.nn.relu(y + shortcut(self.downsample, x))


class Bottleneck(nnx.Module):
    """1 x 1, 3 x 3, 1 x 1 convolutions and a shortcut."""

    expansion = 4

    def __init__(self, in_features: int, width: int, *, stride: int, rngs: nnx.Rngs):
        out_features = width * self.expansion
        self.conv1 = Conv(in_features, width, 1, rngs=rngs)
        self.bn1 = batch_norm(width, rngs)
        self.conv2 = Conv(width, width, 3, stride=stride, rngs=rngs)
        self.bn2 = batch_norm(width, rngs)
        self.conv3 = Conv(width, out_features, 1, rngs=rngs)
        self.bn3 = batch_norm(out_features, rngs)
        self.downsample = projection_shortcut(in_features, out_features, stride, rngs)

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = jax.nn.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return jax.nn.relu(y + shortcut(self.downsample, x))


def projection_shortcut(in_features: int, out_features: int, stride: int, rngs: nnx.Rngs) -> nnx.List | None:
    """1 x 1 convolution and BatchNorm where the block changes shape (option B), nothing elsewhere."""
    if stride == 1 and in_features == out_features:
        return None
    conv = Conv(in_features, out_features, 1, stride=stride, rngs=rngs)
    return nnx.List([conv, batch_norm(out_features, rngs)])


def shortcut(downsample: nnx.List | None, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
    """What is added to the residual branch."""
    if downsample is None:
        return x
    conv, norm = downsample
    return norm(conv(x))


class ResNet(Backbone):
    """Stages: S0 after the stem's max-pool, S1 … S4 after the four residual stages."""

    def __init__(
        self,
        name: str,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        *,
        num_classes: int,
        rngs: nnx.Rngs,
    ):
        widths = (64, 128, 256, 512)
        stage_dims = (64, *(width * block.expansion for width in widths))
        super().__init__(name, num_classes=num_classes, stage_dims=stage_dims, stride=32)
        self.conv1 = Conv(3, 64, 7, stride=2, rngs=rngs)
        self.bn1 = batch_norm(64, rngs)
        for number, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
            features, stride = stage_dims[number - 1], 1 if number == 1 else 2
            blocks = [block(features, width, stride=stride, rngs=rngs)]
            blocks += [block(stage_dims[number], width, stride=1, rngs=rngs) for _ in range(depth - 1)]
            setattr(self, f"layer{number}", nnx.List(blocks))
        self.fc = linear(stage_dims[-1], num_classes, rngs)

    def _stages(self, inputs: Float[Array, "b h w 3"]) -> tuple[Float[Array, "b hl wl dl"], ...]:
        x = max_pool(jax.nn.relu(self.bn1(self.conv1(inputs))))
        stages = [x]
        for number in range(1, 5):
            for block in getattr(self, f"layer{number}"):
                x = block(x)
            stages.append(x)
        return tuple(stages)

    def classify(self, representation: Float[Array, "b d"]) -> Float[Array, "b k"]:
        return self.fc(representation)


ARCHITECTURES = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}


def _register(name: str) -> None:
    block, depths = ARCHITECTURES[name]

    @register_backbone(name, num_classes=1000)
    def build(num_classes: int, rngs: nnx.Rngs) -> ResNet:
        return ResNet(name, block, depths, num_classes=num_classes, rngs=rngs)


for _name in ARCHITECTURES:
    _register(_name)
