"""The CIFAR ResNets of He et al. (2016, section 4.2): 6n + 2 layers, parameter-free shortcuts (option A).

Attribute names are those of the published PyTorch weights.
"""

from collections.abc import Callable, Sequence

from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from castream_jax.backbones.backbone import Backbone, Taps
from castream_jax.backbones.registry import register_backbone
from castream_jax.kernels.computed_once import computed_once
from castream_jax.layers import Conv, Sequential, batch_norm, conv_norm, linear


class CifarBlock(nnx.Module):
    """Two 3 x 3 convolutions and an identity shortcut: subsampled, and padded with zero channels on both sides."""

    def __init__(self, in_features: int, width: int, *, stride: int, rngs: nnx.Rngs):
        self.stride = stride
        self.extra_channels = width - in_features
        self.conv1 = Conv(in_features, width, 3, stride=stride, rngs=rngs)
        self.bn1 = batch_norm(width, rngs)
        self.conv2 = Conv(width, width, 3, rngs=rngs)
        self.bn2 = batch_norm(width, rngs)

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        y = jax.nn.relu(conv_norm(self.conv1, self.bn1, x))
        y = conv_norm(self.conv2, self.bn2, y)
        x = x[:, :: self.stride, :: self.stride]
        half = self.extra_channels // 2
        return computed_once(jax.nn.relu(y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (half, half)))))


class CifarResNet(Backbone):
    """Boundaries: 0 after the first convolution (16 channels), 1 … 3 after the three residual stages."""

    def __init__(self, name: str, blocks_per_stage: int, *, num_classes: int, taps: Taps | None = None, rngs: nnx.Rngs):
        dims = (16, 16, 32, 64)
        super().__init__(name, num_classes=num_classes, boundary_dims=dims, stride=4, taps=taps)
        self.conv1 = Conv(3, 16, 3, rngs=rngs)
        self.bn1 = batch_norm(16, rngs)
        for number in (1, 2, 3):
            features, width, stride = dims[number - 1], dims[number], 1 if number == 1 else 2
            blocks = [CifarBlock(features, width, stride=stride, rngs=rngs)]
            blocks += [CifarBlock(width, width, stride=1, rngs=rngs) for _ in range(blocks_per_stage - 1)]
            setattr(self, f"layer{number}", Sequential(blocks))
        self.linear = linear(64, num_classes, rngs)

    def _parts(self) -> Sequence[Callable[[Array], Array]]:
        return [self._stem, *(getattr(self, f"layer{number}") for number in (1, 2, 3))]

    def _stem(self, inputs: Float[Array, "b h w 3"]) -> Float[Array, "b h w 16"]:
        return jax.nn.relu(conv_norm(self.conv1, self.bn1, inputs))

    def classify(self, representation: Float[Array, "b d"]) -> Float[Array, "b k"]:
        return self.linear(representation)


def _register(depth: int) -> None:
    name = f"cifar_resnet{depth}"

    @register_backbone(name, num_classes=10, input_size=32)
    def build(num_classes: int, rngs: nnx.Rngs, taps: Taps | None = None) -> CifarResNet:
        return CifarResNet(name, (depth - 2) // 6, num_classes=num_classes, taps=taps, rngs=rngs)


# 8 is not in the paper: it is small enough to ship, and reads the digits of the quickstart.
for _depth in (8, 20, 32, 44, 56, 110):
    _register(_depth)
