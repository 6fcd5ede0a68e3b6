"""Maps of a vision transformer's own attention, under its own pooling: attention rollout, LeGrad."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from castream_jax.attribution.inputs import Inputs
from castream_jax.attribution.methods import register_method
from castream_jax.backbones.imported import ImportedBackbone
from castream_jax.kernels.precision import PRECISION
from castream_jax.model import Model
from castream_jax.protocol import Protocol
from castream_jax.stream import GlobalAveragePooling, NativePooling


def _check(model: Model, protocol: Protocol, blocks: int | None = None) -> None:
    _transformer(model)
    if not _own_heads(model):
        raise ValueError(
            "These are methods for a transformer's own pooling, and no head of this model is that: add "
            "castream.NativePooling()."
        )
    if blocks == 0:
        raise ValueError("legrad:0 reads no block: give the number of last blocks to read.")


@register_method("rollout", check=_check, paper="Abnar and Zuidema, ACL 2020, arXiv:2005.00928")
def rollout(inputs: Inputs) -> dict[str, Float[Array, "b h w"]]:
    """Attention rollout: the product over blocks of `(A_l + I) / 2`, `A_l` averaged over heads. Of no class."""
    return _as_maps(inputs, lambda _: followed(_transformer(inputs.model).attention(inputs.pixels)))


@register_method("legrad", check=_check, paper="Bousselham et al., ICCV 2025, arXiv:2404.03214")
def legrad(inputs: Inputs, blocks: int | None = None) -> dict[str, Float[Array, "b h w"]]:
    """LeGrad: mean over blocks of the positive part of a block's logit's derivative by its attention.

    The logit of a block is that of its output under the network's own pooling and classifier. The official code, for
    CLIP alone, pools by the mean of all tokens and reads the last two blocks, `legrad:2`.

    Args:
        inputs: the batch.
        blocks: how many of the last blocks are read; by default all.
    """

    def relevance(head: str) -> Float[Array, "b n"]:
        of_blocks = _transformer(inputs.model).attention_gradients(inputs.pixels, inputs.classes(head))
        return of_blocks[:, -blocks if blocks else 0 :].mean(1)

    return _as_maps(inputs, relevance)


def followed(attention: Float[Array, "b blocks n n"]) -> Float[Array, "b n n"]:
    """How much of each token of the first block reaches each of the last, by attention and identity in equal parts."""
    mixed = (attention + jnp.broadcast_to(jnp.eye(attention.shape[-1]), attention.shape)) / 2
    reached = mixed[:, 0]
    for block in range(1, mixed.shape[1]):
        reached = jnp.matmul(mixed[:, block], reached, precision=PRECISION)
    return reached


def _as_maps(inputs: Inputs, relevance: Callable[[str], Float[Array, "b *tokens"]]) -> dict[str, Float[Array, "b h w"]]:
    """What each patch is worth to the token that is pooled or, where patches are pooled, to their mean."""
    _, height, width, _ = inputs.stages[-1].shape
    maps = {}
    for head in _own_heads(inputs.model):
        values = relevance(head)
        prefix = values.shape[-1] - height * width
        if values.ndim == 3:
            values = values[:, 0] if inputs.model.backbone.pools_itself else values[:, prefix:].mean(1)
        maps[head] = values[:, prefix:].reshape(-1, height, width)
    return maps


def _transformer(model: Model) -> ImportedBackbone:
    backbone = model.backbone
    if not isinstance(backbone, ImportedBackbone) or not backbone.has_attention:
        raise ValueError(
            f"{backbone.name} is no transformer with attention between all patches: choose another method, such as "
            "gradcam. Vision transformers of timm come by `castream import`; one imported by a release before these "
            "methods must be imported again."
        )
    return backbone


def _own_heads(model: Model) -> tuple[str, ...]:
    own = (NativePooling,) if model.backbone.pools_itself else (NativePooling, GlobalAveragePooling)
    return tuple(name for name, head in model.heads.items() if isinstance(head, own))
