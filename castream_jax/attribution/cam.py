"""CAM (Zhou et al., 2016): the linear classifier's weights, applied at every position instead of after pooling."""

import jax
from jax.core import Tracer
import jax.numpy as jnp
from jaxtyping import Array, Float

from castream_jax.attribution.gradcam import combined
from castream_jax.attribution.inputs import Inputs
from castream_jax.attribution.methods import register_method
from castream_jax.backbones.backbone import Backbone
from castream_jax.model import Head, Model
from castream_jax.protocol import Protocol
from castream_jax.stream import GlobalAveragePooling, NativePooling


def _check(model: Model, protocol: Protocol) -> None:
    if not any(_is_average(head, model.backbone) for head in model.heads.values()):
        raise ValueError("CAM needs a model with GlobalAveragePooling among its heads; for a stream use gradcam.")
    if protocol.target_stage not in (None, len(model.backbone.stage_dims) - 1):
        raise ValueError(
            f"CAM weighs the features that GAP pools, those of the last stage, and the protocol has "
            f"target_stage={protocol.target_stage}: use gradcam."
        )
    if not _is_affine(model.backbone):
        raise ValueError(
            f"CAM needs a linear classifier right after GAP, and that of {model.backbone.name} is not linear: "
            "use gradcam, which any classifier has."
        )


@register_method("cam", check=_check, paper="Zhou et al., CVPR 2016, arXiv:1512.04150")
def cam(inputs: Inputs) -> dict[str, Float[Array, "b h w"]]:
    """`sum_k w_k F_k` with `w` the class's row of the linear layer, without ReLU (paper, eq. 1, with h the identity).

    Defined where the representation is GAP of the last stage and the classifier is linear, so streams have none and a
    ConvNeXt, whose classifier begins with a LayerNorm, is refused. There Grad-CAM is the same up to its ReLU.
    """
    features = inputs.stages[-1]
    maps = {}
    for name, head in inputs.model.heads.items():
        if _is_average(head, inputs.model.backbone):
            classes = inputs.classes(name)[:, None]

            def class_logit(representation: Array, classes: Array = classes) -> Array:
                logits = inputs.model.backbone.classify(representation)
                return jnp.take_along_axis(logits, classes, axis=1).sum()

            # The derivative of a linear layer is its weights, whatever they are called in the backbone.
            maps[name] = combined(features, jax.grad(class_logit)(features.mean((1, 2))))
    return maps


def _is_average(head: Head, backbone: Backbone) -> bool:
    own = isinstance(head, NativePooling) and not backbone.pools_itself
    return own or isinstance(head, GlobalAveragePooling)


def _is_affine(backbone: Backbone) -> bool:
    """Whether `f(x + y) - f(0) = (f(x) - f(0)) + (f(y) - f(0))` for the classifier f at random x, y, to 2 %."""
    with jax.ensure_compile_time_eval():
        x, y = jax.random.normal(jax.random.key(0), (2, 1, backbone.stage_dims[-1]))
        origin, *shifted = (backbone.classify(point) for point in (jnp.zeros_like(x), x, y, x + y))
        of_x, of_y, of_sum = (logits - origin for logits in shifted)
        largest, error = jnp.abs(of_sum).max(), jnp.abs(of_sum - of_x - of_y).max()
    if isinstance(error, Tracer):
        raise ValueError("CAM looks at the classifier's weights: call attribute outside of jax.jit.")
    return bool(error <= 0.02 * largest)
