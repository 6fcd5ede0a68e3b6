"""`score`: saliency maps -> AD, AG, AI, insertion and deletion of every image.

All masked images of a batch (masked by each map; revealed and erased step by step) form one list of jobs, walked in
chunks of one size: memory is that of one chunk, however many images, maps and steps there are.
"""

from collections.abc import Mapping
import functools
from typing import Any, NamedTuple

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int
import numpy as np

from castream_jax.attribution import upsample
from castream_jax.attribution.attribute import check_labels
from castream_jax.chunks import chunk_for, map_chunks
from castream_jax.metrics import causal, masking
from castream_jax.model import Model
from castream_jax.parallel import over_images, sharding_of
from castream_jax.protocol import Protocol, get_protocol

Key = tuple[str, str]
Maps = Mapping[Key, Float[Array | np.ndarray, "b h w"]]


def score(
    model: Model,
    pixels: Float[Array | np.ndarray, "b height width 3"],
    labels: Int[Array | np.ndarray, " b"],
    maps: Maps,
    protocol: str | Protocol = "castream",
    *,
    chunk: int | None = None,
) -> dict[Key, dict[str, Float[Array, " b"]]]:
    """Interpretability metrics of each map, each measured with the head the map belongs to.

    Args:
        model: backbone with heads.
        pixels: `[B, H, W, 3]` in [0, 1]; where they are split over devices, each scores its own.
        labels: ground-truth classes `[B]`; unused where the protocol scores the predicted class.
        maps: `{(head, method): [B, h, w]}` in [0, 1], as `attribute` returns; upsampled to the image's size.
        protocol: name or `Protocol`.
        chunk: masked images per trunk pass, at most; bounds the memory, not the numbers. By default, what
            `castream_jax.chunks.chunk_for` finds.

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
    labels = check_labels(model, pixels, labels)
    chunk = chunk_for(model, *pixels.shape[1:3]) if chunk is None else chunk
    return _score(graphdef, state, pixels, labels, dict(maps), get_protocol(protocol), chunk, sharding_of(pixels))


@functools.partial(jax.jit, static_argnames=("graphdef", "protocol", "chunk", "sharding"))
def _score(
    graphdef: nnx.GraphDef,
    state: Any,
    pixels: Array,
    labels: Array,
    maps: Maps,
    protocol: Protocol,
    chunk: int,
    sharding: NamedSharding | None,
) -> dict[Key, dict[str, Array]]:
    def run(state: Any, pixels: Array, labels: Array, maps: Maps) -> dict[Key, dict[str, Array]]:
        model = nnx.merge(graphdef, state)
        return scores_of_maps(model, pixels, labels, maps, model.probabilities(pixels), protocol, chunk)

    return over_images(run, sharding)(state, pixels, labels, maps)


class _Jobs(NamedTuple):
    """Images to score: job j multiplies image `image[j]` by map `map[j]`, or moves its `moved[j]` first pixels."""

    image: Int[Array | np.ndarray, " jobs"]
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
    chunk: int,
) -> dict[Key, dict[str, Array]]:
    """`score`, given the unmasked images' `probabilities` under each head; traceable."""
    batch, height, width = pixels.shape[:3]
    heads = list(model.heads)
    classes = {head: labels if protocol.target_class == "label" else probabilities[head].argmax(-1) for head in heads}

    keys = list(maps)
    saliency = jnp.stack([upsample(jnp.asarray(maps[key]), height, width) for key in keys])
    ranks = jnp.stack([causal.pixel_ranks(one) for one in saliency])
    blurred, empty = _substrates(model, pixels, protocol)

    def run(jobs: _Jobs) -> Array:
        """`[jobs, heads]`: each head's probability of its class."""
        moved = (ranks[jobs.map, jobs.image] < jobs.moved[:, None, None])[..., None]
        image = pixels[jobs.image]
        inserted = jnp.where(moved, image, blurred[jobs.image])
        deleted = jnp.where(moved, empty, image)
        masked = image * saliency[jobs.map, jobs.image][..., None]
        kind = jnp.broadcast_to(jobs.kind[:, None, None, None], image.shape)
        shown = lax.select_n(kind, masked, inserted, deleted)
        of_class = {head: classes[head][jobs.image] for head in heads}
        return _of_class(model.probabilities(shown), of_class, heads)

    steps = causal.num_steps(height, protocol.rows_per_step)
    inner = np.arange(1, steps) * protocol.rows_per_step * width
    results = map_chunks(run, _list_jobs(batch, len(keys), inner, everything=height * width), chunk)
    results = results.reshape(-1, batch, len(heads))  # [jobs of an image, images, heads]
    on_image = _of_class(probabilities, classes, heads)
    on_blurred, on_empty = results[:2]
    results = results[2:].reshape(len(keys), 1 + 2 * len(inner), batch, len(heads))

    scores = {}
    for key, of_map in zip(keys, results, strict=True):
        head = heads.index(key[0])
        p, o = on_image[:, head], of_map[0, :, head]
        insertion = jnp.stack([on_blurred[:, head], *of_map[1:steps, :, head], p], axis=1)
        deletion = jnp.stack([p, *of_map[steps:, :, head], on_empty[:, head]], axis=1)
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


def _list_jobs(batch: int, num_maps: int, inner: Int[np.ndarray, " steps"], everything: int) -> _Jobs:
    """The blurred and the empty image once for all maps; then, per map, masked, inserted and deleted by `inner`."""
    kind = np.repeat([_MASKED, _INSERTED, _DELETED], [1, len(inner), len(inner)])
    moved = np.concatenate([[0], inner, inner])
    per_image = (
        np.concatenate([[0, 0], np.repeat(np.arange(num_maps), len(kind))]),
        np.concatenate([[_INSERTED, _DELETED], np.tile(kind, num_maps)]),
        np.concatenate([[0, everything], np.tile(moved, num_maps)]),
    )
    image = np.tile(np.arange(batch), len(per_image[0]))
    return _Jobs(*(jnp.asarray(field, jnp.int32) for field in (image, *(np.repeat(f, batch) for f in per_image))))


def _substrates(model: Model, pixels: Array, protocol: Protocol) -> tuple[Array, Array]:
    """In pixel space: the images blurred, and the image that is zero in normalised space, `[1, 1, 1, 3]`."""
    backbone = model.backbone
    kernel = causal.blur_kernel(protocol.blur_size, protocol.blur_sigma)
    blurred = backbone.denormalise(causal.blur(backbone.normalise(pixels), kernel))
    return blurred, backbone.denormalise(jnp.zeros((1, 1, 1, 3)))


def _of_class(probabilities: Mapping[str, Array], classes: Mapping[str, Array], heads: list[str]) -> Array:
    """`[B, heads]`: each head's probability of its class."""
    return jnp.stack([jnp.take_along_axis(probabilities[h], classes[h][:, None], axis=1)[:, 0] for h in heads], axis=1)
