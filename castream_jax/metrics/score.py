"""`score`: saliency maps -> AD, AG, AI, insertion, deletion and perturbation of every image.

All masked images of a batch (masked by each map; revealed and erased step by step) form one list of jobs, walked in
chunks of one size: beside the maps at the images' size and their order of pixels, memory is that of one chunk.
"""

from collections.abc import Mapping, Sequence
import difflib
import functools
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from castream_jax.attribution import upsample
from castream_jax.attribution.attribute import check_labels
from castream_jax.attribution.chunk_size import chunk_for
from castream_jax.backbones.backbone import AnyArray
from castream_jax.kernels.chunks import map_chunks
from castream_jax.kernels.pixel_ranks import pixel_ranks
from castream_jax.metrics import causal, masking
from castream_jax.model import Model
from castream_jax.protocol import Protocol, get_protocol
from castream_jax.runtime.mesh import over_images, sharding_of

Key = tuple[str, str]
Maps = Mapping[Key, Float[AnyArray, "b _h _w"]]
Scores = dict[Key, dict[str, Float[Array, "b *_steps"]]]  # a number per image, or a curve

METRICS = ("AD", "AG", "AI", "I", "D")
ALL_METRICS = (*METRICS, "P+", "P-")


def score(
    model: Model,
    pixels: Float[AnyArray, "b height width 3"],
    labels: Int[AnyArray, "..."],
    maps: Mapping[Key, Float[AnyArray, "..."]],
    protocol: str | Protocol = "castream",
    *,
    metrics: Sequence[str] = METRICS,
    chunk: int | None = None,
) -> Scores:
    """Interpretability metrics of each map, each measured with the head the map belongs to.

    Args:
        model: backbone with heads.
        pixels: `[B, H, W, 3]` in [0, 1]; where they are split over devices, each scores its own.
        labels: ground-truth classes `[B]`; unused where the protocol scores the predicted class.
        maps: `{(head, method): [B, h, w]}` in [0, 1], as `attribute` returns; enlarged to the image's size, and
            otherwise taken as they are.
        protocol: name or `Protocol`.
        metrics: which of `ALL_METRICS` to measure; masked images that none of them needs are not computed. `"P+"` and
            `"P-"` are the positive and negative perturbation of Chefer et al. (2021) as the official code takes them:
            how often the class stays the predicted one while 10, 20, …, 90 % of the pixels are painted black, the
            most salient first (P+, lower is better) or the least salient first (P-, higher is better); the mean over
            these nine images.
        chunk: masked images per trunk pass, at most; bounds the memory, not the numbers. By default, what
            `castream_jax.attribution.chunk_size.chunk_for` finds.

    Returns:
        `{(head, method): {metric: [B], …}}` as fractions, and what they are made of: `"p"` `[B]`, the class
        probability on the image; with AD, AG or AI `"o"` `[B]`, that on image x map; with I or D `"insertion_curve"`
        or `"deletion_curve"` `[B, steps + 1]`, the probability of the class that the protocol follows there; with P+
        or P- `"positive_curve"` or `"negative_curve"` `[B, 9]`, 1 where the class is the predicted one.

    Raises:
        ValueError: for a map of an unknown head or of another batch size, labels that do not fit, or an unknown metric.
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
    return _score(
        graphdef,
        state,
        pixels,
        check_labels(model, pixels, labels),
        dict(maps),
        get_protocol(protocol),
        check_metrics(metrics),
        chunk_for(model, *pixels.shape[1:3]) if chunk is None else chunk,
        sharding_of(pixels),
    )


@functools.partial(jax.jit, static_argnames=("graphdef", "protocol", "metrics", "chunk", "sharding"))
def _score(
    graphdef: nnx.GraphDef,
    state: Any,
    pixels: Array,
    labels: Array,
    maps: Maps,
    protocol: Protocol,
    metrics: tuple[str, ...],
    chunk: int,
    sharding: NamedSharding | None,
) -> Scores:
    def run(state: Any, pixels: Array, labels: Array, maps: Maps) -> Scores:
        model = nnx.merge(graphdef, state)
        probabilities = {head: protocol.probabilities(logits) for head, logits in model(pixels).items()}
        return scores_of_maps(model, pixels, labels, maps, probabilities, protocol, chunk, metrics)

    return over_images(run, sharding)(state, pixels, labels, maps)


def check_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """`metrics` in the order of `ALL_METRICS`, or a ValueError that names what is wrong."""
    for metric in metrics:
        if metric not in ALL_METRICS:
            near = difflib.get_close_matches(metric, ALL_METRICS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"There is no metric {metric!r}: {hint}choose from {', '.join(ALL_METRICS)}.")
    if not metrics:
        raise ValueError(f"No metric was given: choose from {', '.join(ALL_METRICS)}.")
    return tuple(metric for metric in ALL_METRICS if metric in metrics)


# What is done to an image: `masked` by the map, or its most salient pixels `inserted` into a substrate, `deleted`, or
# painted black (`positive`); or its least salient ones are (`negative`).
_KINDS = ("masked", "inserted", "deleted", "positive", "negative")
_NEEDS = {"masked": ("AD", "AG", "AI"), "inserted": ("I",), "deleted": ("D",), "positive": ("P+",), "negative": ("P-",)}
_MASKED, _INSERTED, _DELETED, _POSITIVE, _NEGATIVE = range(len(_KINDS))


class _Jobs(NamedTuple):
    """Images to score: job j shows image `image[j]` changed as `kind[j]` says.

    Of the map `map[j]`, the `first[j]` most salient pixels are those inserted, deleted or painted black; of a negative
    perturbation, those that remain.
    """

    image: Int[Array, " jobs"]
    map: Int[Array, " jobs"]
    kind: Int[Array, " jobs"]
    first: Int[Array, " jobs"]


def scores_of_maps(
    model: Model,
    pixels: Float[Array, "b height width 3"],
    labels: Int[Array, " b"],
    maps: Maps,
    probabilities: Mapping[str, Float[Array, "b k"]],
    protocol: Protocol,
    chunk: int,
    metrics: Sequence[str] = METRICS,
) -> Scores:
    """`score`, given the unmasked images' `probabilities` under each head, as the protocol takes them; traceable."""
    batch, height, width = pixels.shape[:3]
    heads = list(model.heads)
    # Every masked image is shown to all heads: a map that several of them share is shown once.
    distinct = list({id(saliency): saliency for saliency in maps.values()}.values())
    number = {id(saliency): i for i, saliency in enumerate(distinct)}
    if not distinct:
        return {}

    predicted = {head: probabilities[head].argmax(-1) for head in heads}
    target = dict.fromkeys(heads, labels) if protocol.target_class == "label" else predicted
    followed = target if protocol.causal_class == "target" else predicted

    kinds = [kind for kind in _KINDS if set(_NEEDS[kind]) & set(metrics)]
    saliency = jnp.stack([upsample(jnp.asarray(of_images), height, width) for of_images in distinct])
    ranks = None
    if kinds != ["masked"]:
        ranks = pixel_ranks(saliency.reshape(-1, height, width), protocol.ties).reshape(saliency.shape)
    paint = _painter(model, pixels, saliency, ranks, protocol)

    def run(jobs: _Jobs) -> Float[Array, "jobs heads"]:
        """Each head's probability of its class or, under perturbation, whether it predicts that class."""
        shown = {head: protocol.probabilities(logits) for head, logits in model(paint(jobs)).items()}
        results = _of_class(shown, target, jobs.image)
        if followed is not target:
            results = jnp.where(_is(jobs.kind, _INSERTED, _DELETED), _of_class(shown, followed, jobs.image), results)
        if "positive" in kinds or "negative" in kinds:
            stays = jnp.stack([shown[head].argmax(-1) == target[head][jobs.image] for head in heads], axis=1)
            results = jnp.where(_is(jobs.kind, _POSITIVE, _NEGATIVE), stays.astype(results.dtype), results)
        return results

    moved = causal.pixels_moved(height, width, protocol.rows_per_step, protocol.num_steps)
    one_substrate = protocol.insertion_start == "mean"
    shared, per_map = _plan(kinds, moved, one_substrate)
    results = map_chunks(run, _list_jobs(batch, len(distinct), shared, per_map), chunk)
    results = results.reshape(-1, batch, len(heads))  # [jobs of an image, images, heads]
    on_start, on_empty = results[0], results[0 if one_substrate else len(shared) - 1]
    results = results[len(shared) :].reshape(len(distinct), len(per_map), batch, len(heads))
    images = jnp.arange(batch)
    on_image, followed_on_image = (_of_class(probabilities, classes, images) for classes in (target, followed))
    at = moved / moved[-1] if protocol.area == "fractions" else np.linspace(0, 1, len(moved))
    columns = {kind: np.array([of_job == _KINDS.index(kind) for of_job, _ in per_map]) for kind in kinds}

    scores: Scores = {}
    for key, of_images in maps.items():
        head, of_map = heads.index(key[0]), results[number[id(of_images)]]
        of_kind = {kind: of_map[column, :, head] for kind, column in columns.items()}
        p, end, values = on_image[:, head], followed_on_image[:, head], {}
        if "masked" in kinds:
            # A map of ones shows the image itself: its p; otherwise rounding would decide AI.
            unmasked = (jnp.asarray(of_images) == 1).all((1, 2))
            values |= _masked(p, jnp.where(unmasked, p, of_kind["masked"][0]))
        if "inserted" in kinds:
            values |= _curve("I", "insertion_curve", at, on_start[:, head], *of_kind["inserted"], end)
        if "deleted" in kinds:
            values |= _curve("D", "deletion_curve", at, end, *of_kind["deleted"], on_empty[:, head])
        for metric, kind in (("P+", "positive"), ("P-", "negative")):
            if kind in kinds:
                values |= {metric: of_kind[kind].mean(0), f"{kind}_curve": of_kind[kind].T}
        scores[key] = {"p": p} | {k: value for k, value in values.items() if k in metrics or k not in ALL_METRICS}
    return scores


def _masked(p: Float[Array, " b"], o: Float[Array, " b"]) -> dict[str, Array]:
    return {
        "AD": masking.average_drop(p, o),
        "AG": masking.average_gain(p, o),
        "AI": masking.average_increase(p, o),
        "o": o,
    }


def _curve(metric: str, name: str, at: Float[np.ndarray, " points"], *points: Float[Array, " b"]) -> dict[str, Array]:
    curve = jnp.stack(points, axis=1)
    return {metric: causal.area_under_curve(curve, at), name: curve}


def _plan(
    kinds: Sequence[str], moved: Int[np.ndarray, " points"], one_substrate: bool
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(kind, first) of the jobs of an image that serve all its maps, and of those of each map.

    The ends of the curves are the same for all maps: the substrate that insertion starts from, the empty image that
    deletion ends at, or both in one. The other ends, the image itself, are known.
    """
    everything = int(moved[-1])
    shared = [(_INSERTED, 0)] if "inserted" in kinds else []
    if "deleted" in kinds and not (shared and one_substrate):
        shared.append((_DELETED, everything))
    painted = [everything * tenth // 10 for tenth in range(1, 10)]
    firsts = {
        "masked": [0],
        "inserted": moved[1:-1].tolist(),
        "deleted": moved[1:-1].tolist(),
        "positive": painted,
        "negative": [everything - number for number in painted],
    }
    return shared, [(_KINDS.index(kind), first) for kind in kinds for first in firsts[kind]]


def _list_jobs(batch: int, num_maps: int, shared: list[tuple[int, int]], per_map: list[tuple[int, int]]) -> _Jobs:
    """The shared jobs, then those of each map; each of them for all images of the batch."""
    plan = np.array([*shared, *(per_map * num_maps)], np.int32).reshape(-1, 2)
    number = np.append(np.zeros(len(shared), np.int32), np.repeat(np.arange(num_maps), len(per_map)))
    fields = np.tile(np.arange(batch), len(plan)), *(np.repeat(f, batch) for f in (number, plan[:, 0], plan[:, 1]))
    return _Jobs(*(jnp.asarray(field, jnp.int32) for field in fields))


def _painter(
    model: Model,
    pixels: Float[Array, "b height width 3"],
    saliency: Float[Array, "maps b height width"],
    ranks: Int[Array, "maps b height width"] | None,
    protocol: Protocol,
) -> Any:
    """The function from jobs to the images to show, `[jobs, height, width, 3]`.

    Each is `weight * image + (1 - weight) * fill`, where the weight is the map, or 1 for some pixels and 0 for others:
    no pixel of 0 or 1 is rounded.
    """
    backbone = model.backbone
    mean = backbone.denormalise(jnp.zeros((1, 1, 1, 3)))  # zero in normalised space
    black = jnp.zeros_like(mean)
    # By kind; an image of its own stands in for the fill of insertion where that is blurred.
    fills = jnp.concatenate([mean if protocol.masked_space == "normalised" else black, mean, mean, black, black])
    first_shown = jnp.asarray([False, True, False, False, True])
    blurred = None
    if protocol.insertion_start == "blurred":
        kernel = causal.blur_kernel(protocol.blur_size, protocol.blur_sigma)
        blurred = backbone.denormalise(causal.blur(backbone.normalise(pixels), kernel))

    def paint(jobs: _Jobs) -> Float[Array, "jobs height width 3"]:
        kind = jobs.kind[:, None, None]
        weight = saliency[jobs.map, jobs.image]
        fill = fills[jobs.kind]
        if ranks is not None:
            first = ranks[jobs.map, jobs.image] < jobs.first[:, None, None]
            weight = jnp.where(kind == _MASKED, weight, (first == first_shown[kind]).astype(weight.dtype))
            if blurred is not None:
                fill = jnp.where(kind[..., None] == _INSERTED, blurred[jobs.image], fill)
        weight = weight[..., None]
        return weight * pixels[jobs.image] + (1 - weight) * fill

    return paint


def _of_class(
    probabilities: Mapping[str, Float[Array, "jobs k"]],
    classes: Mapping[str, Int[Array, " b"]],
    images: Int[Array, " jobs"],
) -> Float[Array, "jobs heads"]:
    """Each head's probability of the class of the image shown."""
    return jnp.stack(
        [
            jnp.take_along_axis(probabilities[head], of_head[images][:, None], axis=1)[:, 0]
            for head, of_head in classes.items()
        ],
        axis=1,
    )


def _is(kind: Int[Array, " jobs"], *kinds: int) -> Bool[Array, "jobs 1"]:
    return jnp.isin(kind, jnp.asarray(kinds))[:, None]
