"""One batch explained: a trunk pass for predictions and maps of all heads, then their scores."""

import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Int, UInt8

from castream_jax.attribution import Inputs, saliency_maps
from castream_jax.chunks import DEFAULT_CHUNK
from castream_jax.metrics import scores_of_maps
from castream_jax.parallel import over_images
from castream_jax.protocol import Protocol
from castream_jax.training.step import to_unit_range

Tree = Any


@functools.partial(jax.jit, static_argnames="graphdef")
def predict_batch(graphdef: nnx.GraphDef, state: Tree, pixels: UInt8[Array, "b h w 3"]) -> dict[str, Int[Array, " b"]]:
    """The class each head predicts."""
    model = nnx.merge(graphdef, state)
    return {name: jnp.argmax(logits, -1) for name, logits in model(to_unit_range(pixels)).items()}


@functools.partial(jax.jit, static_argnames=("graphdef", "methods", "protocol", "chunk", "sharding"))
def explain_batch(
    graphdef: nnx.GraphDef,
    state: Tree,
    pixels: UInt8[Array, "b h w 3"],
    labels: Int[Array, " b"],
    methods: tuple[str, ...],
    protocol: Protocol,
    chunk: int = DEFAULT_CHUNK,
    sharding: NamedSharding | None = None,
) -> tuple[Tree, Tree, Tree]:
    """Predictions `{head: [B]}`, maps `{(head, method): [B, h, w]}` and scores (see `castream.score`).

    Args:
        chunk: masked images per trunk pass and device.
        sharding: how images are split over devices.
    """

    def run(state: Tree, pixels: Array, labels: Array) -> tuple[Tree, Tree, Tree]:
        inputs = Inputs(nnx.merge(graphdef, state), to_unit_range(pixels), labels, protocol, chunk)
        probabilities = {name: protocol.probabilities(logits) for name, logits in inputs.logits.items()}
        maps = saliency_maps(inputs, methods)
        scores = scores_of_maps(inputs.model, inputs.pixels, labels, maps, probabilities, protocol, chunk)
        return {name: jnp.argmax(logits, -1) for name, logits in inputs.logits.items()}, maps, scores

    return over_images(run, sharding)(state, pixels, labels)
