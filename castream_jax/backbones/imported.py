"""A trunk that was a network of another framework: programs in StableHLO, and the arrays that these take.

Programs, each for batches of any size and every platform; `weights` are the arrays by name, x are normalised images
`[B, H, W, 3]`, maps are `[B, h, w, d]` in float32, one for each boundary:

    stages.DTYPE        weights, x, offsets -> maps, vector     offsets are added to the maps
    stages_back.DTYPE   weights, x, offsets, (maps, vector) -> (x, offsets)               derivatives, row vectors
    classify            weights, vector -> logits
    classify_back       weights, vector, logits -> (vector,)

The vector, `[B, d_L]`, is what the network itself makes of its last map; None where it is the mean over positions. Of a
network whose vector is no function of the last map, as a class token, there are as well:

    target.DTYPE        weights, x -> maps, vector, features, context        features: what class activation maps weigh
    complete            weights, context, features -> last map, vector
    complete_back       weights, context, features, (last map, vector) -> (features,)

Of a transformer in whose blocks every token attends to all n tokens, first those that are no patches, then the patches:

    attention.DTYPE             weights, x -> [B, blocks, n, n]            the mean over heads; rows sum to one
    attention_gradients.DTYPE   weights, x, classes -> [B, blocks, n]      see `ImportedBackbone.attention_gradients`
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import hashlib
from typing import Any

from flax import nnx
import jax
import jax.export
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from castream_jax.backbones.backbone import AnyArray, Backbone, Features, Pixels, Taps
from castream_jax.backbones.pooled_stages import PooledStages


class TrunkArray(nnx.Variable):
    """An array that the programs of an imported trunk take: it is never trained."""


class Program:
    """A serialised program; equal to any other of the same bytes, so that compiled functions are found again."""

    def __init__(self, content: bytes):
        self.content = content
        self.sha256 = hashlib.sha256(content).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    @functools.cached_property
    def call(self) -> Callable[..., Any]:
        """The program as a function of JAX arrays."""
        return jax.export.deserialize(bytearray(self.content)).call


@dataclasses.dataclass(frozen=True)
class Boundary:
    """A feature map of an imported trunk: the sub-module that gave it, and its size `[B, height, width, dim]`."""

    name: str
    height: int
    width: int
    dim: int


@dataclasses.dataclass(frozen=True)
class Trunk:
    """What is known of an imported trunk but for its arrays.

    Attributes:
        name: of the network, such as `"timm:resnet50d"`.
        num_classes: size of the logits.
        image_size: side of the images that it takes, in pixels.
        mean, std: per-channel normalisation of pixels in [0, 1].
        boundaries: its feature maps.
        programs: name -> program, in the order of the names.
        has_vector: whether it pools otherwise than by the mean over positions.
        resize: how images get their size, see `castream_jax.ImageSpec`.
        class_names: name of class k at position k; empty where they are not known.
        classifier: names of the matrices that logits are made by.
        checked: largest deviations from the network that it was, as shares of the spread, by what was compared.
        made_with: versions of the packages that imported it.
    """

    name: str
    num_classes: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    boundaries: tuple[Boundary, ...]
    programs: tuple[tuple[str, Program], ...]
    has_vector: bool = False
    resize: str = "squash"
    class_names: tuple[str, ...] = ()
    classifier: tuple[str, ...] = ()
    checked: tuple[tuple[str, float], ...] = ()
    made_with: tuple[tuple[str, str], ...] = ()

    def program(self, name: str) -> Program:
        """The program of this name."""
        return dict(self.programs)[name]

    def digest(self) -> str:
        """SHA-256 over all that decides its numbers but the arrays."""
        decides = (self.name, self.image_size, self.mean, self.std, [(n, p.sha256) for n, p in self.programs])
        return hashlib.sha256(repr(decides).encode()).hexdigest()


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _call(program: Program, back: Program, weights: Any, fixed: Any, moved: tuple[Any, ...]) -> Any:
    """`program(weights, *fixed, *moved)`, whose derivative with respect to `moved` is the program `back`."""
    del back
    return program.call(weights, *fixed, *moved)


def _forward(program: Program, back: Program, weights: Any, fixed: Any, moved: tuple[Any, ...]) -> tuple[Any, Any]:
    return _call(program, back, weights, fixed, moved), (weights, fixed, moved)


def _backward(program: Program, back: Program, residuals: Any, cotangents: Any) -> tuple[None, None, tuple[Any, ...]]:
    del program
    weights, fixed, moved = residuals
    return None, None, back.call(weights, *fixed, *moved, cotangents)


_call.defvjp(_forward, _backward)


class ImportedBackbone(Backbone):
    """A trunk of programs. Images have the one size that it was imported for.

    Attributes:
        trunk: what it is.
        weights: name -> `TrunkArray`.
    """

    dtypes = ("float32", "bfloat16")  # that there are programs for

    def __init__(self, trunk: Trunk, weights: Mapping[str, Any], taps: Taps | None = None):
        last = trunk.boundaries[-1]
        super().__init__(
            trunk.name,
            num_classes=trunk.num_classes,
            boundary_dims=[boundary.dim for boundary in trunk.boundaries],
            stride=trunk.image_size // max(last.height, last.width),
            taps=taps,
            mean=trunk.mean,
            std=trunk.std,
        )
        self.trunk = trunk
        self.weights = nnx.Dict({name: TrunkArray(weights[name]) for name in sorted(weights)})

    @property
    def pools_itself(self) -> bool:
        return self.trunk.has_vector

    def arrays(self) -> dict[str, Array]:
        """Name -> array."""
        return {name: variable[...] for name, variable in self.weights.items()}

    def randomise_classifier(self, seed: int) -> None:
        """Draws the matrices that make the logits anew, each entry with variance 1 / inputs; for sanity checks."""
        for key, name in enumerate(self.trunk.classifier):
            old = self.weights[name][...]
            scale = (self.num_classes / old.size) ** 0.5
            new = jax.random.normal(jax.random.fold_in(jax.random.key(seed), key), old.shape)
            self.weights[name].set_value(new * scale)

    def stages(self, pixels: Pixels, offsets: Mapping[int, Float[Array, "b _hl _wl _dl"]] | None = None) -> Features:
        x = self._checked_input(pixels)
        given = {self.taps[stage]: offset for stage, offset in (offsets or {}).items()}
        moved = [
            given.get(number, jnp.zeros((x.shape[0], boundary.height, boundary.width, boundary.dim)))
            for number, boundary in enumerate(self.trunk.boundaries)
        ]
        maps, vector = self._program("stages", "stages_back", (), (x, moved))
        return self._with_vector(maps, vector)

    def stages_and_target(
        self, pixels: Pixels
    ) -> tuple[Features, Float32[Array, "b hl wl dl"], Callable[[Array], Any]]:
        """S0 … SL and SL itself; of a transformer with a class token, the patches that its last block attends to."""
        if not self.trunk.has_vector:
            return super().stages_and_target(pixels)
        x = self._checked_input(pixels)
        maps, vector, features, context = self.trunk.program(f"target.{self.dtype}").call(self.arrays(), x)

        def complete(features: Array) -> Any:
            return self._program("complete", "complete_back", (context,), (features,))

        return self._with_vector(maps, vector), features, complete

    def classify(self, representation: Float[Array, "b d"]) -> Float[Array, "b k"]:
        return self._program("classify", "classify_back", (), (representation,))

    def attention(self, pixels: Pixels) -> Float32[Array, "b blocks n n"]:
        """Of a transformer, the attention between all n tokens in every block, averaged over its heads.

        Raises:
            ValueError: if the trunk has no such attention, see `has_attention`.
        """
        return self._of_attention("attention").call(self.arrays(), self._checked_input(pixels))

    def attention_gradients(self, pixels: Pixels, classes: Int[AnyArray, " b"]) -> Float32[Array, "b blocks n"]:
        """Of a transformer, what the attention to each of n tokens in every block adds to the logit of `classes`.

        The output of a block is handed to the network's own pooling and classifier, as if it were that of the last one.
        The derivative of the logit with respect to the block's attention, where it is positive, is averaged over heads
        and over the tokens that attend (LeGrad, arXiv:2404.03214).

        Raises:
            ValueError: if the trunk has no such attention.
        """
        program = self._of_attention("attention_gradients")
        return program.call(self.arrays(), self._checked_input(pixels), jnp.asarray(classes, jnp.int32))

    @property
    def has_attention(self) -> bool:
        """Whether it is a transformer in each of whose blocks every token attends to all."""
        return any(name.startswith("attention.") for name, _ in self.trunk.programs)

    def _of_attention(self, name: str) -> Program:
        if not self.has_attention:
            raise ValueError(f"{self.name} has no attention between all of its patches.")
        return self.trunk.program(f"{name}.{self.dtype}")

    def _program(self, name: str, back: str, fixed: tuple[Any, ...], moved: tuple[Any, ...]) -> Any:
        suffix = f".{self.dtype}" if name == "stages" else ""
        programs = self.trunk.program(name + suffix), self.trunk.program(back + suffix)
        return _call(*programs, self.arrays(), fixed, moved)

    def _with_vector(self, maps: tuple[Array, ...], vector: Array | None) -> Features:
        stages = self._taken(maps)
        return stages if vector is None else PooledStages(stages, vector)

    def _checked_input(self, pixels: Pixels) -> Float[Array, "b h w 3"]:
        size = self.trunk.image_size
        x = super()._checked_input(pixels)
        if x.shape[1:3] != (size, size):
            raise ValueError(
                f"{self.name} was imported for images of {size} x {size} pixels, got {x.shape[1]} x {x.shape[2]}: "
                "resize them, or import the network again with that image size."
            )
        return x

    def _parts(self) -> list[Callable[[Array], Array]]:
        raise NotImplementedError("An imported trunk is one program.")
