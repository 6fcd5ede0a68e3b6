"""One batch explained: a trunk pass for predictions and maps of all heads, then their scores."""

import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt8

from castream_jax.attribution import saliency_maps
from castream_jax.metrics import scores_of_maps
from castream_jax.protocol import Protocol
from castream_jax.training.step import to_unit_range

Tree = Any


@functools.partial(jax.jit, static_argnames="graphdef")
def predict_batch(graphdef: nnx.GraphDef, state: Tree, pixels: UInt8[Array, "b h w 3"]) -> dict[str, Int[Array, " b"]]:
    """The class each head predicts."""
    model = nnx.merge(graphdef, state)
    return {name: jnp.argmax(logits, -1) for name, logits in model(to_unit_range(pixels)).items()}


@functools.partial(jax.jit, static_argnames=("graphdef", "methods", "protocol"))
def explain_batch(
    graphdef: nnx.GraphDef,
    state: Tree,
    pixels: UInt8[Array, "b h w 3"],
    labels: Int[Array, " b"],
    methods: tuple[str, ...],
    protocol: Protocol,
) -> tuple[Tree, Tree, Tree]:
    """Predictions `{head: [B]}`, maps `{(head, method): [B, h, w]}` and scores (see `castream.score`)."""
    model = nnx.merge(graphdef, state)
    inputs = to_unit_range(pixels)
    stages = model.backbone.stages(inputs)
    logits = model.logits(stages)
    probabilities = {name: jax.nn.softmax(value) for name, value in logits.items()}
    maps = saliency_maps(model, stages, labels, methods, protocol)
    scores = scores_of_maps(model, inputs, labels, maps, probabilities, protocol)
    return {name: jnp.argmax(value, -1) for name, value in logits.items()}, maps, scores
