"""Grad-CAM (Selvaraju et al., 2017) from the head's derivative alone.

The classifier's logits depend on the last stage `A` only through the head, so `d logit / d A` needs no backward pass
through the trunk. Under GAP the derivative is constant over positions; under a stream it also runs through the
attention's softmax.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from castream_jax.attribution.inputs import Inputs
from castream_jax.attribution.registry import register_method


@register_method("gradcam")
def gradcam(inputs: Inputs) -> dict[str, Float[Array, "b h w"]]:
    """`relu(sum_k w_k F_k)` with `w_k` the mean of the gradient over positions (paper, eq. 1)."""
    return {head: weighted(inputs.features, inputs.gradient(head).mean((1, 2))) for head in inputs.model.heads}


def weighted(features: Float[Array, "b h w d"], weights: Float[Array, "b d"]) -> Float[Array, "b h w"]:
    """`relu(sum_k w_k F_k)`: a class activation map."""
    return jax.nn.relu(jnp.einsum("bhwd,bd->bhw", features, weights, precision=jax.lax.Precision.HIGHEST))
