"""ShapleyCAM (Cai, 2025): Grad-CAM with the second-order term of the Shapley values of the features' positions."""

import jax
from jaxtyping import Array, Float

from castream_jax.attribution.gradcam import weighted
from castream_jax.attribution.inputs import Inputs
from castream_jax.attribution.methods import register_method


@register_method("shapleycam", paper="Cai, 2025, arXiv:2501.06261")
def shapleycam(inputs: Inputs) -> dict[str, Float[Array, "b h w"]]:
    """`relu(sum_k w_k F_k)`, `w_k` the mean over positions of `g_k - (H F)_k / 2`, H the Hessian of the class logit.

    At the last stage, with a linear classifier, this is Grad-CAM, under GAP and under any stream: attention sums to 1,
    so that the mean of `g_k` does not depend on the features. It differs for an earlier target stage, and where a
    classifier begins with a LayerNorm, as a ConvNeXt's. H itself is never formed.
    """
    maps = {}
    for head in inputs.model.heads:

        def slope(features: Array, head: str = head) -> tuple[Array, Array]:
            g = jax.grad(lambda target: inputs.class_logit(head, target).sum())(features)
            return (g * inputs.features).sum(), g

        # Backwards twice: the layers' own derivatives have no forward mode.
        product, g = jax.grad(slope, has_aux=True)(inputs.features)
        maps[head] = weighted(inputs.features, (g - product / 2).mean((1, 2)))
    return maps
