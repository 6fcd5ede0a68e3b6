"""What every backbone is: normalisation, stages, classifier."""

import abc
from collections.abc import Sequence

from flax import nnx
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nnx.Module):
    """A convolutional trunk with its classifier, decomposed at the stages the stream reads (paper, eq. 8).

    Attributes:
        name: registry name, for example `"resnet50"`.
        num_classes: size of the logits.
        stage_dims: channels of S0 … SL.
        stride: pixels per position of the last stage, in each direction.
        mean, std: per-channel normalisation of pixels in [0, 1].
    """

    def __init__(
        self,
        name: str,
        *,
        num_classes: int,
        stage_dims: Sequence[int],
        stride: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ):
        self.name = name
        self.num_classes = num_classes
        self.stage_dims = tuple(stage_dims)
        self.stride = stride
        self.mean = tuple(mean)
        self.std = tuple(std)

    def normalise(self, pixels: Float[Array | np.ndarray, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """Pixels in [0, 1] to the trunk's input."""
        return (jnp.asarray(pixels) - self._row(self.mean)) / self._row(self.std)

    def denormalise(self, inputs: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """Inverse of `normalise`."""
        return inputs * self._row(self.std) + self._row(self.mean)

    def stages(self, pixels: Float[Array | np.ndarray, "b h w 3"]) -> tuple[Float[Array, "b hl wl dl"], ...]:
        """Feature maps S0 … SL of `pixels` (float, [0, 1], RGB, not normalised).

        Raises:
            ValueError: if `pixels` is not `[B, H, W, 3]` floating point, or is smaller than `stride`.
        """
        if pixels.ndim != 4 or pixels.shape[-1] != 3 or not jnp.issubdtype(pixels.dtype, jnp.floating):
            raise ValueError(
                f"pixels must be floating point [B, H, W, 3] in [0, 1], got {pixels.dtype} {list(pixels.shape)}."
            )
        if min(pixels.shape[1:3]) < self.stride:
            raise ValueError(
                f"{self.name} needs images of at least {self.stride} x {self.stride} pixels, "
                f"got {pixels.shape[1]} x {pixels.shape[2]}: resize them first."
            )
        return self._stages(self.normalise(pixels))

    @abc.abstractmethod
    def _stages(self, inputs: Float[Array, "b h w 3"]) -> tuple[Float[Array, "b hl wl dl"], ...]:
        """S0 … SL of normalised `inputs`."""

    @abc.abstractmethod
    def classify(self, representation: Float[Array, "b d"]) -> Float[Array, "b k"]:
        """Logits of a representation `[B, d_L]`, whichever head made it."""

    @staticmethod
    def _row(values: tuple[float, ...]) -> Float[Array, "1 1 1 3"]:
        return jnp.asarray(values, jnp.float32).reshape(1, 1, 1, 3)
