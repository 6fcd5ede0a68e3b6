"""torchvision's ConvNeXts (Liu et al., 2022).

Attribute names are torchvision's, so that a parameter's path is its name in a `state_dict`.
"""

from collections.abc import Callable, Sequence

from flax import nnx
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from castream_jax.backbones.backbone import Backbone, Features, Pixels, Taps
from castream_jax.backbones.registry import register_backbone
from castream_jax.kernels.gelu import gelu
from castream_jax.kernels.precision import computing_in
from castream_jax.layers import Conv, Sequential, identity, layer_norm, linear

_INIT = nnx.initializers.normal(0.02)


class ConvNextBlock(nnx.Module):
    """Depthwise 7 x 7 convolution, LayerNorm and two point-wise layers, scaled per channel and added to the input."""

    def __init__(self, features: int, rngs: nnx.Rngs):
        self.block = Sequential(
            [
                Conv(features, features, 7, groups=features, use_bias=True, kernel_init=_INIT, rngs=rngs),
                identity,  # torchvision goes over to channels-last
                layer_norm(features, rngs),
                linear(features, 4 * features, rngs, kernel_init=_INIT),
                gelu,
                linear(4 * features, features, rngs, kernel_init=_INIT),
            ]
        )
        self.layer_scale = nnx.Param(jnp.full((1, 1, features), 1e-6))

    def __call__(self, x: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
        return self.add(x, self.block(x))

    def add(self, x: Float[Array, "b h w d"], residual: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
        """The block's output: its input plus the residual branch, scaled per channel."""
        return x + self.layer_scale[...][None].astype(x.dtype) * residual


class ConvNext(Backbone):
    """Boundaries: torchvision's `features`, 0 after the stem, then after each stage (odd) and down-sampling (even).

    The official code reads the stem, the first two down-samplings and the last stage.
    """

    def __init__(
        self,
        name: str,
        dims: Sequence[int],
        depths: Sequence[int],
        *,
        num_classes: int,
        taps: Taps | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            name,
            num_classes=num_classes,
            boundary_dims=[dim for dim in dims for _ in range(2)],
            stride=32,
            taps=taps,
            named_taps={"official": (0, 2, 4, 7), "stages": (0, 1, 3, 5, 7)},
        )
        features = [Sequential([_patches(3, dims[0], 4, rngs), layer_norm(dims[0], rngs)])]
        for number, (dim, depth) in enumerate(zip(dims, depths, strict=True)):
            if number > 0:
                previous = dims[number - 1]
                features.append(Sequential([layer_norm(previous, rngs), _patches(previous, dim, 2, rngs)]))
            features.append(Sequential([ConvNextBlock(dim, rngs) for _ in range(depth)]))
        self.features = Sequential(features)
        self.classifier = Sequential(
            [layer_norm(dims[-1], rngs), identity, linear(dims[-1], num_classes, rngs, kernel_init=_INIT)]
        )

    def stages_and_target(
        self, pixels: Pixels
    ) -> tuple[Features, Float32[Array, "b hl wl dl"], Callable[[Array], Array]]:
        """S0 … SL, and the residual branch of the last block, before its layer scale: the official code's target."""
        *parts, last_stage = self._parts()
        *blocks, last_block = last_stage  # pyright: ignore[reportGeneralTypeIssues]
        boundaries = self._run(parts, self._checked_input(pixels))
        x = boundaries[-1]
        with computing_in(self.dtype):
            for block in blocks:
                x = block(x)
            residual = last_block.block(x).astype(jnp.float32)
        x = x.astype(jnp.float32)
        boundaries.append(last_block.add(x, residual))
        return self._taken(boundaries), residual, lambda features: last_block.add(x, features)

    def _parts(self) -> Sequence[Callable[[Array], Array]]:
        return list(self.features)

    def classify(self, representation: Float[Array, "b d"]) -> Float[Array, "b k"]:
        return self.classifier(representation)


def _patches(in_features: int, out_features: int, size: int, rngs: nnx.Rngs) -> Conv:
    """Convolution over patches of `size` x `size` that do not overlap."""
    return Conv(in_features, out_features, size, stride=size, padding=0, use_bias=True, kernel_init=_INIT, rngs=rngs)


# name -> channels and blocks of each stage
ARCHITECTURES = {
    "convnext_tiny": ((96, 192, 384, 768), (3, 3, 9, 3)),
    "convnext_small": ((96, 192, 384, 768), (3, 3, 27, 3)),
    "convnext_base": ((128, 256, 512, 1024), (3, 3, 27, 3)),
    "convnext_large": ((192, 384, 768, 1536), (3, 3, 27, 3)),
}


def _register(name: str) -> None:
    dims, depths = ARCHITECTURES[name]

    @register_backbone(name, num_classes=1000, input_size=224)
    def build(num_classes: int, rngs: nnx.Rngs, taps: Taps | None = None) -> ConvNext:
        return ConvNext(name, dims, depths, num_classes=num_classes, taps=taps, rngs=rngs)


for _name in ARCHITECTURES:
    _register(_name)
