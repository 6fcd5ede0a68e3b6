"""`score`: saliency maps -> AD, AG, AI, insertion, deletion and perturbation of every image.

All masked images of a batch (masked by each map; revealed and erased step by step) form one list of jobs, walked in
chunks of one size: beside the maps at the images' size and their order of pixels, memory is that of one chunk.
"""

from collections.abc import Mapping, Sequence
import difflib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from castream_jax.attribution import upsample
from castream_jax.attribution.arguments import (
    check_chunk,
    check_finite,
    check_labels,
    check_pixels,
    check_probability,
    check_range,
    check_texts,
    native,
)
from castream_jax.attribution.chunk_size import chunk_for
from castream_jax.backbones.backbone import AnyArray
from castream_jax.kernels.chunks import map_chunks
from castream_jax.kernels.pixel_ranks import pixel_ranks
from castream_jax.metrics import causal, masking
from castream_jax.metrics.changed_images import ChangedImage, Changes, changes_for, painter
from castream_jax.metrics.road import road_of_maps, road_scores
from castream_jax.model import Model, check_model, class_values
from castream_jax.protocol import Protocol, get_protocol
from castream_jax.runtime.mesh import OverImages

Key = tuple[str, str]
Maps = Mapping[Key, Float[AnyArray, "b _h _w"]]
Scores = dict[Key, dict[str, Float[Array, "b *_steps"]]]  # a number per image, or a curve

METRICS = ("AD", "AG", "AI", "I", "D")
ALL_METRICS = (*METRICS, "P+", "P-", "ROAD")


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
            these nine images. `"ROAD"` removes the same shares by imputation, see `castream_jax.metrics.road`.
        chunk: masked images per trunk pass, at most; bounds the memory, not the numbers. By default, what
            `castream_jax.attribution.chunk_size.chunk_for` finds.

    Returns:
        `{(head, method): {metric: [B], …}}` as fractions, and what they are made of: `"p"` `[B]`, the class
        probability on the image; with AD, AG or AI `"o"` `[B]`, that on image x map; with I or D `"insertion_curve"`
        or `"deletion_curve"` `[B, steps + 1]`, the probability of the class that the protocol follows there; with P+
        or P- `"positive_curve"` or `"negative_curve"` `[B, 9]`, 1 where the class is the predicted one; with ROAD
        `"road_most_curve"` and `"road_least_curve"` `[B, 9]`, the class probability without these pixels.

    Raises:
        ValueError: for a map of an unknown head, another batch size or range, pixels or labels that do not fit, an
            unknown metric, a softmax over one class, or a model whose output is not finite.
    """
    check_model(model)
    pixels = check_pixels(pixels)
    protocol = get_protocol(protocol)
    check_probability(model, protocol)
    maps = _check_maps(model, pixels, maps)
    scores = score_batch(
        model,
        pixels,
        check_labels(model, pixels, labels),
        maps,
        protocol=protocol,
        metrics=check_metrics(metrics),
        chunk=check_chunk(chunk_for(model, *pixels.shape[1:3]) if chunk is None else chunk),
    )
    check_finite({key: list(measured.values()) for key, measured in scores.items()})
    return scores


def _check_maps(model: Model, pixels: Float[Array, "b height width 3"], maps: Any) -> dict[Key, AnyArray]:
    """`maps`, or a ValueError where they are not what `attribute` returns, for these images."""
    if not isinstance(maps, Mapping):
        raise ValueError(f"maps are {{(head, method): array}}, as `attribute` returns them, got {type(maps).__name__}.")
    checked = {}
    for key, saliency in maps.items():
        if not (isinstance(key, tuple) and len(key) == 2 and all(isinstance(name, str) for name in key)):
            raise ValueError(f"maps are named by (head, method), as `attribute` names them, got {key!r}.")
        head, method = key
        if head not in model.heads:
            raise ValueError(
                f"There is no head {head!r} (map {(head, method)}): the model has {', '.join(model.heads)}."
            )
        if not isinstance(saliency, np.ndarray | jax.Array):
            raise ValueError(f"Map {(head, method)} must be an array [B, h, w], got {type(saliency).__name__}.")
        if saliency.ndim != 3 or saliency.shape[0] != pixels.shape[0]:
            raise ValueError(
                f"Map {(head, method)} must be [B, h, w] with B = {pixels.shape[0]}, got {list(saliency.shape)}."
            )
        if 0 in saliency.shape or saliency.dtype.kind not in "fiub":
            raise ValueError(
                f"Map {(head, method)} must hold real numbers, got {saliency.dtype} {list(saliency.shape)}."
            )
        checked[head, method] = native(saliency)
        check_range(f"Map {(head, method)}", checked[head, method], "scale each map to [0, 1], as `attribute` does")
    return checked


@OverImages
def score_batch(
    model: Model,
    pixels: Float[Array, "b height width 3"],
    labels: Int[Array, " b"],
    maps: Maps,
    *,
    protocol: Protocol,
    metrics: tuple[str, ...],
    chunk: int,
) -> Scores:
    """`score`, all arguments checked."""
    probabilities = model.predict(pixels, protocol)
    return scores_of_maps(model, pixels, labels, maps, probabilities, protocol, chunk, metrics)


def check_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """`metrics` in the order of `ALL_METRICS`, or a ValueError that names what is wrong."""
    metrics = check_texts("metrics", metrics)
    for metric in metrics:
        if metric not in ALL_METRICS:
            near = difflib.get_close_matches(metric, ALL_METRICS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"There is no metric {metric!r}: {hint}choose from {', '.join(ALL_METRICS)}.")
    if not metrics:
        raise ValueError(f"No metric was given: choose from {', '.join(ALL_METRICS)}.")
    return tuple(metric for metric in ALL_METRICS if metric in metrics)


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
    if not maps:
        return {}
    # Every masked image is shown to all heads: a map that several of them share is shown once.
    distinct = list({id(saliency): saliency for saliency in maps.values()}.values())
    number = {id(saliency): i for i, saliency in enumerate(distinct)}
    predicted = {head: values.argmax(-1) for head, values in probabilities.items()}
    target = dict.fromkeys(model.heads, labels) if protocol.target_class == "label" else predicted
    followed = target if protocol.causal_class == "target" else predicted
    images = jnp.arange(pixels.shape[0])
    p, p_followed = (class_values(probabilities, classes, images) for classes in (target, followed))
    changes = changes_for(metrics, pixels.shape[1], pixels.shape[2], protocol)
    shown = _show(model, pixels, distinct, changes, target, followed, protocol, chunk)
    heads = list(model.heads)
    imputed = road_of_maps(model, pixels, distinct, target, protocol, chunk) if "ROAD" in metrics else None

    scores: Scores = {}
    for key, saliency in maps.items():
        head, map_number = heads.index(key[0]), number[id(saliency)]
        values = _values(changes, shown, map_number, head, p[:, head], p_followed[:, head], jnp.asarray(saliency))
        if imputed is not None:
            values |= road_scores(*imputed[map_number, ..., head])
        scores[key] = {name: value for name, value in values.items() if name in metrics or name not in ALL_METRICS}
    return scores


class _Shown(NamedTuple):
    """Each head's probability of its class, or under perturbation whether it predicts that class, per changed image."""

    shared: Float[Array, "changes b heads"]
    of_maps: Float[Array, "maps changes b heads"]


def _show(
    model: Model,
    pixels: Float[Array, "b height width 3"],
    maps: Sequence[Float[AnyArray, "b _h _w"]],
    changes: Changes,
    target: Mapping[str, Int[Array, " b"]],
    followed: Mapping[str, Int[Array, " b"]],
    protocol: Protocol,
    chunk: int,
) -> _Shown:
    batch, height, width = pixels.shape[:3]
    if not changes.kinds:
        return _Shown(jnp.zeros((0, batch, len(target))), jnp.zeros((len(maps), 0, batch, len(target))))
    saliency = jnp.stack([upsample(jnp.asarray(map_), height, width) for map_ in maps])
    ranks = None
    if changes.kinds != ("masked",):
        ranks = pixel_ranks(saliency.reshape(-1, height, width), protocol.ties).reshape(saliency.shape)
    paint = painter(model.backbone, pixels, saliency, ranks, protocol)

    def run(shown: ChangedImage) -> Float[Array, "images heads"]:
        probabilities = model.predict(paint(shown), protocol)
        results = class_values(probabilities, target, shown.image)
        if followed is not target:
            on_followed = class_values(probabilities, followed, shown.image)
            results = jnp.where(shown.is_a("inserted", "deleted"), on_followed, results)
        if {"positive", "negative"} & set(changes.kinds):
            stays = jnp.stack([probabilities[head].argmax(-1) == target[head][shown.image] for head in target], axis=1)
            results = jnp.where(shown.is_a("positive", "negative"), stays.astype(results.dtype), results)
        return results

    results = map_chunks(run, changes.for_batch(batch, len(maps)), chunk)
    results = results.reshape(-1, batch, len(target))
    of_maps = results[len(changes.shared) :].reshape(len(maps), -1, batch, len(target))
    return _Shown(results[: len(changes.shared)], of_maps)


def _values(
    changes: Changes,
    shown: _Shown,
    map_number: int,
    head: int,
    p: Float[Array, " b"],
    p_followed: Float[Array, " b"],
    saliency: Float[Array, "b h w"],
) -> dict[str, Float[Array, "b *_steps"]]:
    """All that is known of one map under one head: metrics, and what they are made of."""
    results = {kind: shown.of_maps[map_number][changes.columns(kind), :, head] for kind in changes.kinds}
    values: dict[str, Array] = {"p": p}
    if "masked" in results:
        # A map of ones shows the image itself: its p; otherwise rounding would decide AI.
        o = jnp.where((saliency == 1).all((1, 2)), p, results["masked"][0])
        values |= {"AD": masking.average_drop(p, o), "AG": masking.average_gain(p, o)}
        values |= {"AI": masking.average_increase(p, o), "o": o}
    if "inserted" in results:
        curve = jnp.stack([shown.shared[0, :, head], *results["inserted"], p_followed], axis=1)
        values |= {"I": causal.area_under_curve(curve, changes.at), "insertion_curve": curve}
    if "deleted" in results:
        curve = jnp.stack([p_followed, *results["deleted"], shown.shared[-1, :, head]], axis=1)
        values |= {"D": causal.area_under_curve(curve, changes.at), "deletion_curve": curve}
    for metric, kind in (("P+", "positive"), ("P-", "negative")):
        if kind in results:
            values |= {metric: results[kind].mean(0), f"{kind}_curve": results[kind].T}
    return values
