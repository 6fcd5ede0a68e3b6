"""The stream's raw attention: the map that comes for free."""

from jaxtyping import Array, Float

from castream_jax.attribution.inputs import Inputs
from castream_jax.attribution.registry import register_method
from castream_jax.stream import CrossAttentionStream


@register_method("attention")
def attention(inputs: Inputs) -> dict[str, Float[Array, "b h w"]]:
    """Softmax attention of the last stage, mean over attention heads; GAP has none."""
    return {
        name: head(inputs.stages, inputs.query)[1][-1].mean(1)
        for name, head in inputs.model.heads.items()
        if isinstance(head, CrossAttentionStream)
    }
