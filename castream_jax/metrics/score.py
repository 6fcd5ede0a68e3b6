"""`score`: saliency maps -> AD, AG, AI, insertion and deletion of every image.

All masked images of a batch (masked by each map; revealed and erased step by step) form one list of jobs, and
`lax.map` walks it with the batch of images as the batch of the trunk: memory is that of one forward pass however many
maps and steps there are, and on several devices each keeps its own images (a vmap over masks would make XLA gather
them all on every device).
"""

from collections.abc import Mapping
import functools
from typing import Any, NamedTuple

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from castream_jax.attribution import upsample
from castream_jax.attribution.attribute import check_labels
from castream_jax.metrics import causal, masking
from castream_jax.model import Model
from castream_jax.protocol import Protocol, get_protocol

Key = tuple[str, str]
Maps = Mapping[Key, Float[Array | np.ndarray, "b h w"]]


def score(
    model: Model,
    pixels: Float[Array | np.ndarray, "b height width 3"],
    labels: Int[Array | np.ndarray, " b"],
    maps: Maps,
    protocol: str | Protocol = "castream",
) -> dict[Key, dict[str, Float[Array, " b"]]]:
    """Interpretability metrics of each map, each measured with the head the map belongs to.

    Args:
        model: backbone with heads.
        pixels: `[B, H, W, 3]` in [0, 1].
        labels: ground-truth classes `[B]`; unused where the protocol scores the predicted class.
        maps: `{(head, method): [B, h, w]}` in [0, 1], as `attribute` returns; upsampled to the image's size.
        protocol: name or `Protocol`.

    Returns:
        `{(head, method): {"AD", "AG", "AI", "I", "D": [B], "p", "o": [B], "insertion_curve",
        "deletion_curve": [B, steps + 1]}}`, fractions: `p` and `o` are the class probability on the image and on
        image x map.

    Raises:
        ValueError: for a map of an unknown head or of another batch size, or labels that do not fit.
    """
    for (head, method), saliency in maps.items():
        if head not in model.heads:
            raise ValueError(
                f"There is no head {head!r} (map {(head, method)}): the model has {', '.join(model.heads)}."
            )
        if saliency.ndim != 3 or saliency.shape[0] != pixels.shape[0]:
            raise ValueError(
                f"Map {(head, method)} must be [B, h, w] with B = {pixels.shape[0]}, got {list(saliency.shape)}."
            )
    graphdef, state = nnx.split(model)
    return _score(graphdef, state, pixels, check_labels(model, pixels, labels), dict(maps), get_protocol(protocol))


@functools.partial(jax.jit, static_argnames=("graphdef", "protocol"))
def _score(
    graphdef: nnx.GraphDef, state: Any, pixels: Array, labels: Array, maps: Maps, protocol: Protocol
) -> dict[Key, dict[str, Array]]:
    model = nnx.merge(graphdef, state)
    return scores_of_maps(model, pixels, labels, maps, model.probabilities(pixels), protocol)


class _Jobs(NamedTuple):
    """Images to score: job j multiplies by map `map[j]`, or inserts or deletes its `moved[j]` most salient pixels."""

    map: Int[Array | np.ndarray, " jobs"]
    kind: Int[Array | np.ndarray, " jobs"]
    moved: Int[Array | np.ndarray, " jobs"]


_MASKED, _INSERTED, _DELETED = range(3)


def scores_of_maps(
    model: Model,
    pixels: Float[Array, "b height width 3"],
    labels: Int[Array, " b"],
    maps: Maps,
    probabilities: Mapping[str, Float[Array, "b k"]],
    protocol: Protocol,
) -> dict[Key, dict[str, Array]]:
    """`score`, given the unmasked images' `probabilities` under each head; traceable."""
    height, width = pixels.shape[1:3]
    heads = list(model.heads)
    classes = {head: labels if protocol.target_class == "label" else probabilities[head].argmax(-1) for head in heads}
    on_image = _of_class(probabilities, classes, heads)

    def class_probabilities(images: Array) -> Array:
        """`[heads, B]`: each head's probability of its class."""
        return _of_class(model.probabilities(images), classes, heads)

    keys = list(maps)
    saliency = jnp.stack([upsample(jnp.asarray(maps[key]), height, width) for key in keys])
    ranks = jnp.stack([causal.pixel_ranks(one) for one in saliency])
    blurred, empty = _substrates(model, pixels, protocol)

    def run(job: _Jobs) -> Array:
        moved = ranks[job.map][..., None] < job.moved
        inserted = jnp.where(moved, pixels, blurred)
        deleted = jnp.where(moved, empty, pixels)
        masked = pixels * saliency[job.map][..., None]
        return class_probabilities(lax.select_n(job.kind, masked, inserted, deleted))

    steps = causal.num_steps(height, protocol.rows_per_step)
    inner = np.arange(1, steps) * protocol.rows_per_step * width
    results = lax.map(run, _list_jobs(len(keys), inner, everything=height * width))
    on_blurred, on_empty = results[:2]
    results = results[2:].reshape(len(keys), 1 + 2 * len(inner), *results.shape[1:])

    scores = {}
    for key, of_map in zip(keys, results, strict=True):
        head = heads.index(key[0])
        p, o = on_image[head], of_map[0, head]
        insertion = jnp.stack([on_blurred[head], *of_map[1:steps, head], p], axis=1)
        deletion = jnp.stack([p, *of_map[steps:, head], on_empty[head]], axis=1)
        scores[key] = {
            "AD": masking.average_drop(p, o),
            "AG": masking.average_gain(p, o),
            "AI": masking.average_increase(p, o),
            "I": causal.area_under_curve(insertion),
            "D": causal.area_under_curve(deletion),
            "p": p,
            "o": o,
            "insertion_curve": insertion,
            "deletion_curve": deletion,
        }
    return scores


def _list_jobs(num_maps: int, inner: Int[np.ndarray, " steps"], everything: int) -> _Jobs:
    """The blurred and the empty image once for all maps; then, per map, masked, inserted and deleted by `inner`."""
    kind = np.repeat([_MASKED, _INSERTED, _DELETED], [1, len(inner), len(inner)])
    moved = np.concatenate([[0], inner, inner])
    jobs = _Jobs(
        map=np.concatenate([[0, 0], np.repeat(np.arange(num_maps), len(kind))]),
        kind=np.concatenate([[_INSERTED, _DELETED], np.tile(kind, num_maps)]),
        moved=np.concatenate([[0, everything], np.tile(moved, num_maps)]),
    )
    return _Jobs(*(jnp.asarray(field, jnp.int32) for field in jobs))


def _substrates(model: Model, pixels: Array, protocol: Protocol) -> tuple[Array, Array]:
    """In pixel space: the blurred image, and the image that is zero in normalised space (the mean colour)."""
    backbone = model.backbone
    kernel = causal.blur_kernel(protocol.blur_size, protocol.blur_sigma)
    blurred = backbone.denormalise(causal.blur(backbone.normalise(pixels), kernel))
    return blurred, backbone.denormalise(jnp.zeros_like(pixels))


def _of_class(probabilities: Mapping[str, Array], classes: Mapping[str, Array], heads: list[str]) -> Array:
    return jnp.stack([jnp.take_along_axis(probabilities[h], classes[h][:, None], axis=1)[:, 0] for h in heads])
