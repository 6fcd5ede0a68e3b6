"""One batch on the devices: a trunk pass for predictions and maps of all heads, then their scores.

Under several protocols it is still one pass: XLA computes equal expressions of one program once. Masked images differ.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from castream_jax.attribution import Inputs, saliency_maps
from castream_jax.attribution.attention import attention_ranges
from castream_jax.metrics import scores_of_maps
from castream_jax.model import Model, to_unit_range
from castream_jax.protocol import Protocol
from castream_jax.runtime.mesh import OverImages

Tree = Any

TOP = 5  # a label among so many most probable classes counts for the top-5 accuracy


class Predictions(NamedTuple):
    """Per head the most probable classes, see `top_classes`, and whether the logits are finite.

    And, where maps were made, `attention` `{(head, method): [B, 2]}`: see `attention_ranges`.
    """

    top: dict[str, Int[Array, "b top"]]
    finite: dict[str, Bool[Array, " b"]]
    attention: dict[tuple[str, str], Float[Array, "b 2"]]


@OverImages
def predict_batch(model: Model, pixels: UInt8[Array, "b h w 3"]) -> Predictions:
    """What each head predicts."""
    return _predictions(model(to_unit_range(pixels)))


@OverImages
def logits_batch(model: Model, pixels: UInt8[Array, "b h w 3"]) -> dict[str, Float[Array, "b k"]]:
    """The logits of each head."""
    return model(to_unit_range(pixels))


@OverImages
def explain_batch(
    model: Model,
    pixels: UInt8[Array, "b h w 3"],
    labels: Int[Array, " b"],
    *,
    methods: tuple[str, ...],
    protocols: tuple[Protocol, ...],
    chunk: int,
) -> tuple[Predictions, list[Tree], list[Tree]]:
    """What each head predicts; of each protocol, maps `{(head, method): [B, h, w]}` and scores (see `castream.score`).

    Args:
        model: backbone with heads.
        pixels, labels: of the images; where they are split over devices, each explains its own.
        methods: see `castream.attribute`.
        protocols: at least one; those that make the same maps share them.
        chunk: masked images per trunk pass and device.
    """
    every = [Inputs(model, to_unit_range(pixels), labels, protocol, chunk) for protocol in protocols]
    maps, scores = [], []
    for number, (protocol, inputs) in enumerate(zip(protocols, every, strict=True)):
        same = next(earlier for earlier in range(number + 1) if protocol.makes_the_maps_of(protocols[earlier]))
        maps.append(maps[same] if same < number else saliency_maps(inputs, methods))
        probabilities = {head: protocol.probabilities(logits) for head, logits in inputs.logits.items()}
        scores.append(scores_of_maps(model, inputs.pixels, labels, maps[number], probabilities, protocol, chunk))
    return _predictions(every[0].logits)._replace(attention=attention_ranges(every[0], methods)), maps, scores


def _predictions(logits: Mapping[str, Float[Array, "b k"]]) -> Predictions:
    finite = {head: jnp.isfinite(of_head).all(1) for head, of_head in logits.items()}
    return Predictions({head: top_classes(of_head) for head, of_head in logits.items()}, finite, {})


def top_classes(logits: Float[Array, "b k"]) -> Int[Array, "b top"]:
    """The `TOP` most probable classes, best first; the best alone where there are no more classes than that."""
    return lax.top_k(logits, TOP if logits.shape[1] > TOP else 1)[1]
