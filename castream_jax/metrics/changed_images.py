"""The images that the metrics need: which pixels change, and how, for each image and map."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from castream_jax.backbones.backbone import Backbone
from castream_jax.metrics import causal
from castream_jax.protocol import Protocol

# What is done to an image: `masked` by the map, or its most salient pixels `inserted` into a substrate, `deleted`, or
# painted black (`positive`); or its least salient ones are (`negative`). And the metrics that need it.
KINDS = {"masked": {"AD", "AG", "AI"}, "inserted": {"I"}, "deleted": {"D"}, "positive": {"P+"}, "negative": {"P-"}}
_CODES = {kind: code for code, kind in enumerate(KINDS)}


class ChangedImage(NamedTuple):
    """Changed images by number: the j-th shows image `image[j]`, changed as `kind[j]` says.

    Of the map `map[j]`, the `first[j]` most salient pixels are those inserted, deleted or painted black; of a negative
    perturbation, those that remain.
    """

    image: Int[Array, " n"]
    map: Int[Array, " n"]
    kind: Int[Array, " n"]
    first: Int[Array, " n"]

    def is_a(self, *kinds: str) -> Bool[Array, "n 1"]:
        """Whether each is of one of `kinds`."""
        return jnp.isin(self.kind, jnp.asarray([_CODES[kind] for kind in kinds]))[:, None]


@dataclasses.dataclass(frozen=True)
class Changes:
    """The changes of every image.

    The ends of the curves are the same for all maps: the substrate that insertion starts from (first of the shared
    ones), the empty image that deletion ends at (last), or both in one. The other ends, the image itself, are known.

    Attributes:
        kinds: those that are needed, in the order of `KINDS`.
        shared: (kind, first) of the changes that serve all maps of an image.
        per_map: (kind, first) of the changes of each map.
        at: where the points of the curves lie in [0, 1].
    """

    kinds: tuple[str, ...]
    shared: tuple[tuple[str, int], ...]
    per_map: tuple[tuple[str, int], ...]
    at: Float[np.ndarray, " points"]

    def columns(self, kind: str) -> Bool[np.ndarray, " changes"]:
        """Which of `per_map` are of this kind."""
        return np.array([changed == kind for changed, _ in self.per_map])

    def for_batch(self, batch: int, num_maps: int) -> ChangedImage:
        """The shared changes, then those of each map; each of them for all images of the batch."""
        changes = [*self.shared, *(self.per_map * num_maps)]
        number = np.append(np.zeros(len(self.shared)), np.repeat(np.arange(num_maps), len(self.per_map)))
        kind, first = [_CODES[kind] for kind, _ in changes], [first for _, first in changes]
        fields = np.tile(np.arange(batch), len(changes)), *(np.repeat(f, batch) for f in (number, kind, first))
        return ChangedImage(*(jnp.asarray(field, jnp.int32) for field in fields))


def changes_for(metrics: Sequence[str], height: int, width: int, protocol: Protocol) -> Changes:
    """What `metrics` need under `protocol` of an image of this size."""
    kinds = tuple(kind for kind, needed_by in KINDS.items() if needed_by & set(metrics))
    moved = causal.pixels_moved(height, width, protocol.rows_per_step, protocol.num_steps)
    everything = int(moved[-1])
    shared = [("inserted", 0)] if "inserted" in kinds else []
    if "deleted" in kinds and not (shared and protocol.insertion_start == "mean"):
        shared.append(("deleted", everything))
    painted = [everything * tenth // 10 for tenth in range(1, 10)]
    firsts = {
        "masked": [0],
        "inserted": moved[1:-1].tolist(),
        "deleted": moved[1:-1].tolist(),
        "positive": painted,
        "negative": [everything - count for count in painted],
    }
    at = moved / everything if protocol.area == "fractions" else np.linspace(0, 1, len(moved))
    return Changes(kinds, tuple(shared), tuple((kind, first) for kind in kinds for first in firsts[kind]), at)


def painter(
    backbone: Backbone,
    pixels: Float[Array, "b height width 3"],
    saliency: Float[Array, "maps b height width"],
    ranks: Int[Array, "maps b height width"] | None,
    protocol: Protocol,
) -> Callable[[ChangedImage], Float[Array, "n height width 3"]]:
    """The function from changed images, by number, to their pixels.

    Each is `weight * image + (1 - weight) * fill`, where the weight is the map, or 1 for some pixels and 0 for others:
    no pixel of 0 or 1 is rounded.
    """
    mean = backbone.denormalise(jnp.zeros((1, 1, 1, 3)))  # zero in normalised space
    black = jnp.zeros_like(mean)
    # By kind; an image of its own stands in for the fill of insertion where that is blurred.
    fills = jnp.concatenate([mean if protocol.masked_space == "normalised" else black, mean, mean, black, black])
    first_shown = jnp.asarray([False, True, False, False, True])
    blurred = None
    if protocol.insertion_start == "blurred":
        kernel = causal.blur_kernel(protocol.blur_size, protocol.blur_sigma)
        blurred = backbone.denormalise(causal.blur(backbone.normalise(pixels), kernel))

    def paint(shown: ChangedImage) -> Float[Array, "n height width 3"]:
        kind = shown.kind[:, None, None]
        weight = saliency[shown.map, shown.image]
        fill = fills[shown.kind]
        if ranks is not None:
            first = ranks[shown.map, shown.image] < shown.first[:, None, None]
            weight = jnp.where(kind == _CODES["masked"], weight, (first == first_shown[kind]).astype(weight.dtype))
            if blurred is not None:
                fill = jnp.where(kind[..., None] == _CODES["inserted"], blurred[shown.image], fill)
        weight = weight[..., None]
        return weight * pixels[shown.image] + (1 - weight) * fill

    return paint
