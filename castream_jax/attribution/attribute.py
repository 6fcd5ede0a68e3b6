"""`attribute`: pixels and labels -> {(head, method): saliency map}."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int32

from castream_jax.attribution.arguments import (
    check_chunk,
    check_finite,
    check_labels,
    check_methods,
    check_pixels,
    needs_chunk,
)
from castream_jax.attribution.chunk_size import chunk_for
from castream_jax.attribution.inputs import Inputs
from castream_jax.attribution.methods import parse_method, scores_of
from castream_jax.attribution.saliency import min_max, upsample
from castream_jax.backbones.backbone import AnyArray
from castream_jax.model import Model, check_model
from castream_jax.protocol import Protocol, get_protocol
from castream_jax.runtime.mesh import OverImages

Maps = dict[tuple[str, str], Float[Array, "b _h _w"]]


def attribute(
    model: Model,
    pixels: Float[AnyArray, "b height width 3"],
    labels: Int[AnyArray, "..."],
    methods: Sequence[str] = ("gradcam",),
    protocol: str | Protocol = "castream",
    *,
    chunk: int | None = None,
) -> Maps:
    """Saliency maps of each head by each method.

    Args:
        model: backbone with heads.
        pixels: `[B, H, W, 3]` in [0, 1]; where they are split over devices, each explains its own.
        labels: ground-truth classes `[B]`; unused where the protocol explains the predicted class.
        methods: names from `castream_jax.attribution.METHODS`, where a method takes numbers followed by them, as in
            `"attention:2"`; `"inverted-"` before any of them asks for one minus its map.
        protocol: name or `Protocol`.
        chunk: masked images per trunk pass, at most, for the methods that mask; bounds the memory, not the numbers.
            By default, what `castream_jax.attribution.chunk_size.chunk_for` finds.

    Returns:
        `{(head, method): [B, h, w]}` in [0, 1], at the resolution of the target features unless the method or
        protocol has another.

    Raises:
        ValueError: for an unknown method or protocol; pixels or labels of another type, shape or range; a method or
            target stage that the model does not have; or maps that are not finite.
    """
    check_model(model)
    pixels = check_pixels(pixels)
    labels = check_labels(model, pixels, labels)
    protocol = get_protocol(protocol)
    names = check_methods(model, methods, protocol)
    if chunk is None:
        chunk = chunk_for(model, *pixels.shape[1:3]) if needs_chunk(names) else 1
    chunk = check_chunk(chunk)
    maps = attribute_batch(model, pixels, labels, methods=names, protocol=protocol, chunk=chunk)
    check_finite({key: [saliency] for key, saliency in maps.items()})
    return maps


@OverImages
def attribute_batch(
    model: Model,
    pixels: Float[Array, "b height width 3"],
    labels: Int32[Array, " b"],
    *,
    methods: tuple[str, ...],
    protocol: Protocol,
    chunk: int,
) -> Maps:
    """`attribute`, all arguments checked."""
    return saliency_maps(Inputs(model, pixels, labels, protocol, chunk), methods)


def saliency_maps(inputs: Inputs, methods: tuple[str, ...]) -> Maps:
    """`attribute`, the trunk pass done; traceable."""
    maps = {}
    for text in methods:
        method, numbers, inverted = parse_method(text)
        for head, scores in scores_of(text, method, numbers, inputs).items():
            saliency = scores if method.finished else to_map(scores, inputs)
            maps[head, text] = 1 - saliency if inverted else saliency
    return maps


def to_map(scores: Float[Array, "b h w"], inputs: Inputs) -> Float[Array, "b h2 w2"]:
    """Scores as a saliency map in [0, 1], at the size that the protocol's order of steps gives."""
    if inputs.protocol.map_order == "resize_then_min_max":
        scores = upsample(scores, *inputs.pixels.shape[1:3])
    # XLA may compute the scores once for their minimum and once more, with other rounding, for what it is taken from.
    return jnp.clip(min_max(scores), 0, 1)
