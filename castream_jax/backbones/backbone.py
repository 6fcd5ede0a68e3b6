"""What every backbone is: normalisation, stages, classifier."""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Shaped
import numpy as np

from castream_jax.backbones.normalisation import normalisation
from castream_jax.concrete import check_range
from castream_jax.kernels.precision import Dtype, computing_in

# What users pass: NumPy's arrays or JAX's.
AnyArray: TypeAlias = Array | np.ndarray

# Images `[B, H, W, 3]`, RGB in [0, 1], as they are given: a backbone examines what comes.
Pixels: TypeAlias = Shaped[AnyArray, "..."]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Which boundaries a stream reads: a name of `Backbone.named_taps`, or their numbers.
Taps: TypeAlias = Literal["official", "stages"] | Sequence[int]

# S0 … SL, each of its own size: an axis that begins with an underscore need not be the same in all of them.
Features: TypeAlias = tuple[Float32[Array, "b _hl _wl _dl"], ...]


class Backbone(nnx.Module):
    """A convolutional trunk with its classifier, decomposed at the stages the stream reads (paper, eq. 8).

    A trunk is a sequence of parts, and a feature map lies at the boundary after each. Those that the stream reads,
    S0 … SL, are the taps. The last boundary, whose features GAP pools, is always SL.

    Attributes:
        name: registry name, for example `"resnet50"`.
        num_classes: size of the logits.
        boundary_dims: channels at every boundary.
        taps: numbers of the boundaries that are S0 … SL.
        stage_dims: channels of S0 … SL.
        stride: pixels per position of the last stage, in each direction.
        mean, std: per-channel normalisation of pixels in [0, 1].
        dtype: type that the trunk computes in, see `Dtype`. Parameters, stages, heads and the classifier are float32
            whatever it is. It can be set.
        dtypes: what it can be.

    Examples:
        >>> backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
        >>> stages = backbone.stages(jnp.zeros((1, 32, 32, 3)))
        >>> [stage.shape for stage in stages]
        [(1, 32, 32, 16), (1, 32, 32, 16), (1, 16, 16, 32), (1, 8, 8, 64)]
        >>> backbone.classify(stages[-1].mean((1, 2))).shape
        (1, 10)
    """

    dtypes: ClassVar[tuple[str, ...]] = get_args(Dtype)
    _dtype: Dtype = "float32"

    def __init__(
        self,
        name: str,
        *,
        num_classes: int,
        boundary_dims: Sequence[int],
        stride: int,
        taps: Taps | None = None,
        named_taps: Mapping[str, Sequence[int]] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ):
        """Args:
            taps: `"official"` (default), the boundaries that the authors' code reads; `"stages"`, what enters the
                first stage and the end of every stage; or any boundaries by their numbers, in order.
            named_taps: what these names stand for; by default, both for all boundaries.

        Raises:
            ValueError: for unknown taps, taps that are out of order or do not end with the last boundary, or a mean
                or std that is not of pixels in [0, 1].
        """
        self.name = name
        self.num_classes = num_classes
        self.boundary_dims = tuple(boundary_dims)
        self.taps = self._boundary_numbers("official" if taps is None else taps, named_taps or {})
        self.stage_dims = tuple(self.boundary_dims[tap] for tap in self.taps)
        self.stride = stride
        self.mean, self.std = normalisation(mean, std)

    @property
    def dtype(self) -> Dtype:
        return self._dtype

    @dtype.setter
    def dtype(self, dtype: Dtype) -> None:
        if dtype not in self.dtypes:
            raise ValueError(f"dtype must be one of {', '.join(self.dtypes)} for {self.name}, got {dtype!r}.")
        self._dtype = dtype

    def normalise(self, pixels: Float[AnyArray, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """Pixels in [0, 1] to the trunk's input."""
        return (jnp.asarray(pixels) - self._row(self.mean)) / self._row(self.std)

    def denormalise(self, inputs: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """Inverse of `normalise`."""
        return inputs * self._row(self.std) + self._row(self.mean)

    def stages(
        self,
        pixels: Pixels,
        offsets: Mapping[int, Float[Array, "b _hl _wl _dl"]] | None = None,
    ) -> Features:
        """Feature maps S0 … SL of `pixels` (float, [0, 1], RGB, not normalised).

        Args:
            pixels: `[B, H, W, 3]`.
            offsets: stage number -> what is added to that stage's features before the rest of the trunk reads them.
                The derivative at 0 is the derivative with respect to that stage.

        Raises:
            ValueError: if `pixels` is not `[B, H, W, 3]` floating point, or is smaller than `stride`.
        """
        parts = self._parts()
        if len(parts) != len(self.boundary_dims):
            raise ValueError(
                f"{self.name} has {len(parts)} parts and {len(self.boundary_dims)} boundary_dims: after each part "
                "there is one boundary."
            )
        return self._taken(self._run(parts, self._checked_input(pixels), offsets))

    def stages_and_target(
        self, pixels: Pixels
    ) -> tuple[Features, Float32[Array, "b hl wl dl"], Callable[[Array], Any]]:
        """S0 … SL, the features that class activation maps weigh, and the function of these that SL is.

        They are SL itself unless an architecture says otherwise. The function gives SL or, of a network that pools
        otherwise than by the mean, SL and the vector `[B, d_L]` that it pools.
        """
        stages = self.stages(pixels)
        return stages, stages[-1], lambda features: features

    def _checked_input(self, pixels: Pixels) -> Float[Array, "b h w 3"]:
        if not isinstance(pixels, np.ndarray | jax.Array):
            raise ValueError(f"pixels must be an array [B, H, W, 3], got {type(pixels).__name__}: use numpy.stack.")
        if pixels.ndim != 4 or pixels.shape[-1] != 3 or not jnp.issubdtype(pixels.dtype, jnp.floating):
            raise ValueError(
                f"pixels must be floating point [B, H, W, 3] in [0, 1], got {pixels.dtype} {list(pixels.shape)}."
            )
        check_range("pixels", pixels, "the model normalises them itself, and 8-bit values are divided by 255")
        if min(pixels.shape[1:3]) < self.stride:
            raise ValueError(
                f"{self.name} needs images of at least {self.stride} x {self.stride} pixels, "
                f"got {pixels.shape[1]} x {pixels.shape[2]}: choose a larger image size."
            )
        return self.normalise(pixels).astype("bfloat16" if self.dtype == "bfloat16" else "float32")

    def _run(
        self, parts: Sequence[Callable[[Array], Array]], x: Array, offsets: Mapping[int, Array] | None = None
    ) -> list[Array]:
        """Feature maps at the boundaries after each of `parts`."""
        at_boundary = {self.taps[stage]: offset for stage, offset in (offsets or {}).items()}
        boundaries, images = [], x.shape[0]
        for number, part in enumerate(parts):
            with computing_in(self.dtype):
                x = part(x)
            if x.ndim != 4 or x.shape[0] != images or x.shape[-1] != self.boundary_dims[number]:
                raise ValueError(
                    f"Part {number} of {self.name} must give features [B, h, w, {self.boundary_dims[number]}] with "
                    f"B = {images}, as its boundary_dims say, got {list(x.shape)}."
                )
            if number in at_boundary:
                x = x + at_boundary[number].astype(x.dtype)
            boundaries.append(x)
        return boundaries

    def _taken(self, boundaries: Sequence[Array]) -> Features:
        return tuple(boundaries[tap].astype(jnp.float32) for tap in self.taps)

    @property
    def pools_itself(self) -> bool:
        """Whether the network pools its last map otherwise than by the mean over positions, see `PooledStages`."""
        return False

    @abc.abstractmethod
    def _parts(self) -> Sequence[Callable[[Array], Array]]:
        """What leads from normalised pixels to the first boundary, and from each boundary to the next."""

    @abc.abstractmethod
    def classify(self, representation: Float[Array, "b d"]) -> Float[Array, "b k"]:
        """Logits of a representation `[B, d_L]`, whichever head made it."""

    def _boundary_numbers(self, taps: Taps, named: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
        count = len(self.boundary_dims)
        if isinstance(taps, str):
            if taps not in ("official", "stages"):
                raise ValueError(f"taps must be 'official', 'stages' or numbers of boundaries, got {taps!r}.")
            return tuple(named.get(taps, range(count)))
        if not isinstance(taps, Sequence) or not all(isinstance(tap, int) for tap in taps):
            raise ValueError(f"taps must be 'official', 'stages' or numbers of boundaries, got {taps!r}.")
        numbers = tuple(taps)
        if not numbers or list(numbers) != sorted(set(numbers)) or numbers[0] < 0 or numbers[-1] != count - 1:
            raise ValueError(
                f"taps must be increasing numbers of {self.name}'s boundaries 0 … {count - 1} and end with "
                f"{count - 1}, the features that are pooled; got {list(numbers)}."
            )
        return numbers

    @staticmethod
    def _row(values: tuple[float, ...]) -> Float32[Array, "1 1 1 3"]:
        return jnp.asarray(values, jnp.float32).reshape(1, 1, 1, 3)
