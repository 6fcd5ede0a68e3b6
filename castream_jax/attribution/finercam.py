"""Finer-CAM (Zhang et al., 2025): Grad-CAM of what tells the class from those that are most like it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from castream_jax.attribution.gradcam import weighted
from castream_jax.attribution.inputs import Inputs
from castream_jax.attribution.methods import register_method
from castream_jax.model import Model
from castream_jax.protocol import Protocol

SIMILAR = 3  # classes, at most


def _check(model: Model, protocol: Protocol) -> None:
    if model.backbone.num_classes < 2:
        raise ValueError("Finer-CAM compares a class with others, and the model has one class: use gradcam.")


@register_method("finercam", check=_check, paper="Zhang et al., CVPR 2025, arXiv:2501.11309")
def finercam(inputs: Inputs) -> dict[str, Float[Array, "b h w"]]:
    """`relu(sum_k w_k F_k)`, `w_k` the mean derivative of the class's logit minus those of the three nearest classes.

    As in pytorch-grad-cam: the three are those whose logits are nearest to the class's, the differences are weighted by
    their softmax probabilities, which are differentiated, too, and `alpha` is 1.
    """
    maps = {}
    for head in inputs.model.heads:
        classes = inputs.classes(head)[:, None]
        logits = inputs.logits[head]
        distances = jnp.abs(logits - jnp.take_along_axis(logits, classes, axis=1))
        own = jnp.arange(logits.shape[1])[None] == classes
        nearest = jnp.argsort(jnp.where(own, jnp.inf, distances), axis=1)[:, : min(SIMILAR, logits.shape[1] - 1)]

        def contrast(target: Array, head: str = head, classes: Array = classes, nearest: Array = nearest) -> Array:
            values = inputs.all_logits(head, target)
            weights = jnp.take_along_axis(jax.nn.softmax(values), nearest, axis=1)
            difference = jnp.take_along_axis(values, classes, axis=1) - jnp.take_along_axis(values, nearest, axis=1)
            return ((weights * difference).sum(1) / (weights.sum(1) + 1e-9)).sum()

        maps[head] = weighted(inputs.features, jax.grad(contrast)(inputs.features).mean((1, 2)))
    return maps
