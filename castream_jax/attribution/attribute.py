"""`attribute`: pixels and labels -> {(head, method): saliency map}."""

from collections.abc import Sequence
import functools
from typing import Any

from flax import nnx
import jax
from jax.core import Tracer
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from castream_jax.attribution.gradcam import gradcam, target_gradient
from castream_jax.attribution.saliency import min_max
from castream_jax.model import Model
from castream_jax.protocol import Protocol, get_protocol
from castream_jax.stream import CrossAttentionStream, Stages

METHODS = ("gradcam", "attention")

Maps = dict[tuple[str, str], Float[Array, "b h w"]]


def attribute(
    model: Model,
    pixels: Float[Array | np.ndarray, "b height width 3"],
    labels: Int[Array | np.ndarray, " b"],
    methods: Sequence[str] = ("gradcam",),
    protocol: str | Protocol = "castream",
) -> Maps:
    """Saliency maps of each head by each method.

    Args:
        model: backbone with heads.
        pixels: `[B, H, W, 3]` in [0, 1].
        labels: ground-truth classes `[B]`; unused where the protocol explains the predicted class.
        methods: `"gradcam"`; `"attention"`, the stream's raw attention at the last stage, mean over attention heads,
            which GAP has not.
        protocol: name or `Protocol`.

    Returns:
        `{(head, method): [B, h, w]}` in [0, 1] at the resolution of the last stage.

    Raises:
        ValueError: for an unknown method or protocol, labels of another shape or outside the model's classes, or
            raw attention of a model without a stream.
    """
    graphdef, state = nnx.split(model)
    labels = check_labels(model, pixels, labels)
    return _attribute(graphdef, state, pixels, labels, check_methods(model, methods), get_protocol(protocol))


@functools.partial(jax.jit, static_argnames=("graphdef", "methods", "protocol"))
def _attribute(
    graphdef: nnx.GraphDef, state: Any, pixels: Array, labels: Array, methods: tuple[str, ...], protocol: Protocol
) -> Maps:
    model = nnx.merge(graphdef, state)
    return saliency_maps(model, model.backbone.stages(pixels), labels, methods, protocol)


def saliency_maps(
    model: Model, stages: Stages, labels: Int[Array, " b"], methods: tuple[str, ...], protocol: Protocol
) -> Maps:
    """`attribute` from stage features already computed; traceable."""
    query = model.predicted_class(stages)
    features = stages[-1]
    maps: Maps = {}
    for name, head in model.heads.items():

        def logits(target: Array, head: Any = head) -> Array:
            return model.backbone.classify(head((*stages[:-1], target), query)[0])

        if "gradcam" in methods:
            classes = labels if protocol.target_class == "label" else jnp.argmax(logits(features), axis=-1)
            maps[name, "gradcam"] = gradcam(features, target_gradient(logits, features, classes))
        if "attention" in methods and isinstance(head, CrossAttentionStream):
            maps[name, "attention"] = min_max(head(stages, query)[1][-1].mean(1))
    return maps


def check_methods(model: Model, methods: Sequence[str]) -> tuple[str, ...]:
    """`methods` as a tuple, or a ValueError that names what is wrong."""
    unknown = [method for method in methods if method not in METHODS]
    if unknown or not methods:
        raise ValueError(f"Unknown attribution methods {unknown}: choose from {', '.join(METHODS)}.")
    if set(methods) == {"attention"} and not any(isinstance(h, CrossAttentionStream) for h in model.heads.values()):
        raise ValueError("Raw attention needs a model with a CrossAttentionStream among its heads.")
    return tuple(methods)


def check_labels(model: Model, pixels: Array | np.ndarray, labels: Array | np.ndarray) -> Int[Array, " b"]:
    """`labels` as int32 `[B]`, or a ValueError that names what is wrong."""
    if jnp.shape(labels) != pixels.shape[:1]:
        raise ValueError(
            f"labels must be [B] = [{pixels.shape[0]}], one class per image, got {list(jnp.shape(labels))}."
        )
    labels = jnp.asarray(labels, jnp.int32)
    if not isinstance(labels, Tracer) and labels.size:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= model.backbone.num_classes:
            raise ValueError(f"labels must lie in 0 … {model.backbone.num_classes - 1}, got {low} … {high}.")
    return labels
