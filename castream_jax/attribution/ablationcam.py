"""Ablation-CAM (Desai and Ramaswamy, 2020): a channel weighs what the class's logit loses without it.

The ablated channel is one of the target features, so at the last stage an ablation is an evaluation of the head and
the classifier, without a trunk pass.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from castream_jax.attribution.gradcam import weighted
from castream_jax.attribution.inputs import Inputs
from castream_jax.attribution.methods import register_method
from castream_jax.kernels.chunks import map_chunks


@register_method("ablationcam", chunked=True, paper="Desai and Ramaswamy, WACV 2020")
def ablationcam(inputs: Inputs) -> dict[str, Float[Array, "b h w"]]:
    """`relu(sum_k w_k F_k)` with `w_k = (y - y_k) / y`, where `y_k` is the logit with channel k set to 0 (eq. 3).

    A map that is scaled to [0, 1] does not change with the size of `y`, but it does with its sign: as in the paper,
    a negative logit turns the map around. Where y = 0, the drop itself is the weight.
    """
    return {head: weighted(inputs.features, ablation_weights(inputs, head)) for head in inputs.model.heads}


def ablation_weights(inputs: Inputs, head: str) -> Float[Array, "b d"]:
    """`(y - y_k) / y` of every image and channel."""
    features = inputs.features
    batch, *_, num_channels = features.shape

    def ablated_logit(channel: Int[Array, ""]) -> Float[Array, " b"]:
        kept = jnp.arange(num_channels) != channel
        return inputs.class_logit(head, features * kept[None, None, None])

    # All images at once, so that a chunk of features is `chunk` images' or, of a larger batch, one channel's.
    per_chunk = max(1, inputs.chunk // batch)
    ablated = map_chunks(jax.vmap(ablated_logit), jnp.arange(num_channels), per_chunk).T
    logit = inputs.class_logit(head, features)[:, None]
    return (logit - ablated) / jnp.where(logit == 0, 1, logit)
