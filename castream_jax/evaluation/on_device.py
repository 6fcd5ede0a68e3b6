"""One batch on the devices: a trunk pass for predictions and maps of all heads, then their scores."""

import functools
from typing import Any

from flax import nnx
import jax
from jax import lax
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int, UInt8

from castream_jax.attribution import Inputs, saliency_maps
from castream_jax.metrics import scores_of_maps
from castream_jax.protocol import Protocol
from castream_jax.runtime.mesh import over_images
from castream_jax.training.step import to_unit_range

Tree = Any

TOP = 5  # a label among so many most probable classes counts for the top-5 accuracy


@functools.partial(jax.jit, static_argnames=("graphdef", "sharding"))
def predict_batch(
    graphdef: nnx.GraphDef, state: Tree, pixels: UInt8[Array, "b h w 3"], sharding: NamedSharding | None = None
) -> dict[str, Int[Array, "b top"]]:
    """The most probable classes under each head, see `top_classes`."""

    def run(state: Tree, pixels: Array) -> dict[str, Array]:
        return {name: top_classes(logits) for name, logits in nnx.merge(graphdef, state)(to_unit_range(pixels)).items()}

    return over_images(run, sharding)(state, pixels)


@functools.partial(jax.jit, static_argnames=("graphdef", "sharding"))
def logits_batch(
    graphdef: nnx.GraphDef, state: Tree, pixels: UInt8[Array, "b h w 3"], sharding: NamedSharding | None = None
) -> dict[str, Float[Array, "b k"]]:
    """The logits of each head."""

    def run(state: Tree, pixels: Array) -> dict[str, Array]:
        return nnx.merge(graphdef, state)(to_unit_range(pixels))

    return over_images(run, sharding)(state, pixels)


@functools.partial(jax.jit, static_argnames=("graphdef", "methods", "protocol", "chunk", "sharding"))
def explain_batch(
    graphdef: nnx.GraphDef,
    state: Tree,
    pixels: UInt8[Array, "b h w 3"],
    labels: Int[Array, " b"],
    methods: tuple[str, ...],
    protocol: Protocol,
    chunk: int,
    sharding: NamedSharding | None = None,
) -> tuple[Tree, Tree, Tree]:
    """Most probable classes `{head: [B, top]}`, maps `{(head, method): [B, h, w]}` and scores (see `castream.score`).

    Args:
        chunk: masked images per trunk pass and device.
        sharding: how images are split over devices.
    """

    def run(state: Tree, pixels: Array, labels: Array) -> tuple[Tree, Tree, Tree]:
        inputs = Inputs(nnx.merge(graphdef, state), to_unit_range(pixels), labels, protocol, chunk)
        probabilities = {name: protocol.probabilities(logits) for name, logits in inputs.logits.items()}
        maps = saliency_maps(inputs, methods)
        scores = scores_of_maps(inputs.model, inputs.pixels, labels, maps, probabilities, protocol, chunk)
        return {name: top_classes(logits) for name, logits in inputs.logits.items()}, maps, scores

    return over_images(run, sharding)(state, pixels, labels)


def top_classes(logits: Float[Array, "b k"]) -> Int[Array, "b top"]:
    """The `TOP` most probable classes, best first; the best alone where there are no more classes than that."""
    return lax.top_k(logits, TOP if logits.shape[1] > TOP else 1)[1]
