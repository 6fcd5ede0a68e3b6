"""The stream's raw attention: the map that comes for free.

`attention` is that of the last stage; `attention:2` that of S2, averaged over attention heads; `attention:2:0` that of
S2's attention head 0. The same of `attention_logits`. A head that does not read the stage, as GAP, has no map.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from castream_jax.attribution.inputs import Inputs
from castream_jax.attribution.methods import parse_method, register_method
from castream_jax.model import Model
from castream_jax.protocol import Protocol
from castream_jax.stream import CrossAttentionStream


def _check(model: Model, protocol: Protocol, stage: int | None = None, attention_head: int = 0) -> None:
    if not any(isinstance(head, CrossAttentionStream) for head in model.heads.values()):
        raise ValueError(
            "Raw attention is a stream's, and no head of this model is one: choose another method, such as gradcam."
        )
    if not _readers(model, stage, 0):
        first = min(stream.start_stage for stream in _readers(model, None, 0).values())
        last = len(model.backbone.stage_dims) - 1
        raise ValueError(f"No stream reads S{stage}: the model's streams read S{first} … S{last}.")
    if not _readers(model, stage, attention_head):
        most = max(stream.num_heads for stream in _readers(model, stage, 0).values())
        raise ValueError(f"There is no attention head {attention_head}: the stream's are 0 … {most - 1}.")


@register_method("attention", check=_check, paper="Torres et al., CVPR Workshops 2024, arXiv:2404.14996")
def attention(
    inputs: Inputs, stage: int | None = None, attention_head: int | None = None
) -> dict[str, Float[Array, "b h w"]]:
    """Softmax attention `softmax(F_l q_l / sqrt(d_l))` (paper, eq. 4).

    Args:
        inputs: the batch.
        stage: S0 … SL; by default the last one.
        attention_head: from 0; by default the mean over attention heads.
    """
    return _of_streams(inputs, lambda stream: stream(inputs.stages, inputs.query)[1], stage, attention_head)


@register_method("attention_logits", check=_check, paper="Torres et al., CVPR Workshops 2024, arXiv:2404.14996")
def attention_logits(
    inputs: Inputs, stage: int | None = None, attention_head: int | None = None
) -> dict[str, Float[Array, "b h w"]]:
    """What the softmax is taken of, `F_l q_l / sqrt(d_l)`: a CAM whose channel weights are the query (paper, eq. 5)."""
    return _of_streams(
        inputs, lambda stream: stream.attention_logits(inputs.stages, inputs.query), stage, attention_head
    )


def attention_ranges(inputs: Inputs, methods: Sequence[str]) -> dict[tuple[str, str], Float[Array, "b 2"]]:
    """Least and greatest attention of each map of raw attention among `methods`, in multiples of uniform attention.

    A map in [0, 1] has lost both: a nearly uniform attention looks as decided as any other.
    """
    ranges = {}
    for text in methods:
        method, numbers, inverted = parse_method(text)
        if method.function is attention and not inverted:
            for head, scores in attention(inputs, *numbers).items():
                positions = scores.shape[1] * scores.shape[2]
                ranges[head, text] = positions * jnp.stack([scores.min((1, 2)), scores.max((1, 2))], axis=1)
    return ranges


def _of_streams(
    inputs: Inputs,
    per_stage: Callable[[CrossAttentionStream], Sequence[Float[Array, "b n h w"]]],
    stage: int | None,
    attention_head: int | None,
) -> dict[str, Float[Array, "b h w"]]:
    last = len(inputs.stages) - 1
    maps = {}
    for name, stream in _readers(inputs.model, stage, attention_head or 0).items():
        of_heads = per_stage(stream)[(last if stage is None else stage) - stream.start_stage]
        maps[name] = of_heads.mean(1) if attention_head is None else of_heads[:, attention_head]
    return maps


def _readers(model: Model, stage: int | None, attention_head: int) -> dict[str, CrossAttentionStream]:
    """The streams that read `stage` with more than `attention_head` attention heads."""
    last = len(model.backbone.stage_dims) - 1
    stage = last if stage is None else stage
    return {
        name: head
        for name, head in model.heads.items()
        if isinstance(head, CrossAttentionStream)
        and head.start_stage <= stage <= last
        and attention_head < head.num_heads
    }
