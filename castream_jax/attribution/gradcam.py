"""Grad-CAM (Selvaraju et al., 2017) from the head's derivative alone.

The classifier's logits depend on the last stage `A` only through the head, so `d logit / d A` needs no backward pass
through the trunk. Under GAP the derivative is constant over positions; under a stream it also runs through the
attention's softmax.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from castream_jax.attribution.saliency import min_max


def target_gradient(
    logits: Callable[[Float[Array, "b h w d"]], Float[Array, "b k"]],
    features: Float[Array, "b h w d"],
    classes: Int[Array, " b"],
) -> Float[Array, "b h w d"]:
    """Derivative of each image's logit of its class with respect to its own target features."""

    def total(features: Float[Array, "b h w d"]) -> Float[Array, ""]:
        return jnp.take_along_axis(logits(features), classes[:, None], axis=1).sum()

    return jax.grad(total)(features)


def gradcam(features: Float[Array, "b h w d"], gradient: Float[Array, "b h w d"]) -> Float[Array, "b h w"]:
    """`min_max(relu(sum_k w_k F_k))` with `w_k` the mean of the gradient over positions (paper, eq. 1)."""
    weights = gradient.mean((1, 2))
    return min_max(jax.nn.relu(jnp.einsum("bhwd,bd->bhw", features, weights, precision=jax.lax.Precision.HIGHEST)))
