"""Grad-CAM and its family, from the head's derivative alone.

`F` are the target features `[h, w, d]` of one image, `g = d logit / d F` the derivative of its class's logit. From the
last stage on, the logits depend on `F` only through the head, so `g` needs no backward pass through the trunk. Under
GAP it is constant over positions, and Grad-CAM, XGrad-CAM and HiResCAM agree; under a stream it also runs through the
attention's softmax.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from castream_jax.attribution.inputs import Inputs
from castream_jax.attribution.methods import register_method


@register_method("gradcam", paper="Selvaraju et al., ICCV 2017, arXiv:1610.02391")
def gradcam(inputs: Inputs) -> dict[str, Float[Array, "b h w"]]:
    """Grad-CAM (Selvaraju et al., 2017): `relu(sum_k w_k F_k)`, `w_k` the mean of `g_k` over positions."""
    return {head: weighted(inputs.features, inputs.gradient(head).mean((1, 2))) for head in inputs.model.heads}


@register_method("gradcam++", paper="Chattopadhay et al., WACV 2018, arXiv:1710.11063")
def gradcampp(inputs: Inputs) -> dict[str, Float[Array, "b h w"]]:
    """Grad-CAM++ (Chattopadhay et al., 2018): `relu(sum_k w_k F_k)`, `w_k = sum_ij alpha_ijk relu(g_ijk)`.

    `alpha = g^2 / (2 g^2 + S g^3)` (its eq. 19), with `S` the sum of `F_k` over positions; under the protocol's
    `gradcampp_sum` of `"sum(a*g3)"`, the sum of `F g^3` stands in place of `S g^3`. A position where the denominator is
    0 has no weight. The second and third derivatives are those of the exponential of the logit, whose value, a factor
    of the whole map, is left out.
    """
    maps = {}
    for head in inputs.model.heads:
        g = inputs.gradient(head)
        # alpha = 1 / (2 + third): powers of g, which underflow, only where they are needed.
        if inputs.protocol.gradcampp_sum == "a*g3":
            third = inputs.features.sum((1, 2), keepdims=True) * g
        else:
            third = _ratio((inputs.features * g**3).sum((1, 2), keepdims=True), g**2)
        alpha = _ratio(jnp.ones_like(g), 2 + third)
        maps[head] = weighted(inputs.features, (alpha * jax.nn.relu(g)).sum((1, 2)))
    return maps


@register_method("xgradcam", paper="Fu et al., BMVC 2020, arXiv:2008.02312")
def xgradcam(inputs: Inputs) -> dict[str, Float[Array, "b h w"]]:
    """XGrad-CAM (Fu et al., 2020): `relu(sum_k w_k F_k)`, `w_k` the mean of `g_k` weighted by `F_k` over positions.

    A channel that sums to 0 has no weight.
    """
    sums = inputs.features.sum((1, 2))
    return {
        head: weighted(inputs.features, _ratio((inputs.features * inputs.gradient(head)).sum((1, 2)), sums))
        for head in inputs.model.heads
    }


@register_method("hirescam", paper="Draelos and Carin, 2020, arXiv:2011.08891")
def hirescam(inputs: Inputs) -> dict[str, Float[Array, "b h w"]]:
    """HiResCAM (Draelos and Carin, 2020): `relu(sum_k g_k F_k)`, each position with its own gradient."""
    return {head: jax.nn.relu((inputs.gradient(head) * inputs.features).sum(-1)) for head in inputs.model.heads}


@register_method("layercam", paper="Jiang et al., IEEE TIP 30, 2021")
def layercam(inputs: Inputs) -> dict[str, Float[Array, "b h w"]]:
    """LayerCAM (Jiang et al., 2021): `relu(sum_k relu(g_k) F_k)`, made for earlier stages (`target_stage`)."""
    return {
        head: jax.nn.relu((jax.nn.relu(inputs.gradient(head)) * inputs.features).sum(-1)) for head in inputs.model.heads
    }


def combined(features: Float[Array, "b h w d"], weights: Float[Array, "b d"]) -> Float[Array, "b h w"]:
    """`sum_k w_k F_k`."""
    return jnp.einsum("bhwd,bd->bhw", features, weights, precision=jax.lax.Precision.HIGHEST)


def weighted(features: Float[Array, "b h w d"], weights: Float[Array, "b d"]) -> Float[Array, "b h w"]:
    """`relu(sum_k w_k F_k)`: a class activation map."""
    return jax.nn.relu(combined(features, weights))


def _ratio(numerator: Float[Array, "*#n"], denominator: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """0 where the denominator is 0."""
    return jnp.where(denominator != 0, numerator / jnp.where(denominator != 0, denominator, 1), 0)
