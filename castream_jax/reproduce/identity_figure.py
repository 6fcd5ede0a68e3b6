"""Attention is a class activation map (paper, eq. 5; supplementary, figure 1): checked on features, and drawn.

With `alpha = q_L / sqrt(d)`, cross attention before its softmax is `F alpha`, a product per position over channels; a
CAM is `sum_k alpha_k F^k`, a sum over whole feature maps. They are one quantity, computed in two orders.
"""

from collections.abc import Sequence
import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8
from matplotlib.figure import Figure
import numpy as np

from castream_jax.backbones.backbone import AnyArray
from castream_jax.drawing.style import PIXELS_PER_INCH, style
from castream_jax.model import Model
from castream_jax.stream import CrossAttention, CrossAttentionStream, Stages


class Identity(NamedTuple):
    """Both sides of eq. 5 at the last stage, for some images.

    Attributes:
        attention: before the softmax, as the stream computes it in float32, `[B, h, w]`.
        cam: the combination of feature maps, in float64.
        bound: how far float32 rounding alone can take the former from the latter, at most.
    """

    attention: Float[np.ndarray, "b h w"]
    cam: Float[np.ndarray, "b h w"]
    bound: Float[np.ndarray, "b h w"]

    @property
    def difference(self) -> Float[np.ndarray, "b h w"]:
        return np.abs(self.attention - self.cam)


def check_identity(model: Model, head: str, pixels: Float[AnyArray, "b height width 3"]) -> Identity:
    """Computes both sides of eq. 5 for the stream `head` of a model.

    The bound is the textbook one of a sum of d products in any order, `gamma_{d+2} sum_k |alpha_k F^k|` with
    `gamma_n = n u / (1 - n u)`, u = 2^-24: two more roundings are the scale's, in alpha and in the product.

    Raises:
        ValueError: if the head is no stream of plain cross attention with one attention head.
    """
    stream = model.heads[head]
    if not isinstance(stream, CrossAttentionStream) or stream.num_heads != 1 or stream.block != "ca":
        raise ValueError(f"Eq. 5 is about plain cross attention with one attention head: {head!r} is something else.")
    stages = model.backbone.stages(pixels)
    query = model.predicted_class(stages)
    attention = stream.attention_logits(stages, query)[-1][:, 0]
    weights = np.asarray(channel_weights(stream, stages, query), np.float64)
    features = np.asarray(stages[-1], np.float64)
    cam, magnitude = np.zeros(features.shape[:3]), np.zeros(features.shape[:3])
    for k in range(features.shape[-1]):
        term = weights[:, k, None, None] * features[..., k]
        cam += term
        magnitude += np.abs(term)
    roundings = (features.shape[-1] + 2) * 2.0**-24
    return Identity(np.asarray(attention, np.float64), cam, roundings / (1 - roundings) * magnitude)


def channel_weights(stream: CrossAttentionStream, stages: Stages, query: Int[Array, " b"]) -> Float[Array, "b d"]:
    """`alpha = q_L / sqrt(d_L)`: what the stream weighs the channels of the last stage with, per image."""
    dim = stages[-1].shape[-1]
    if stream.start_stage == len(stages) - 1:
        tokens = stream.cls_token[...]
        token = jnp.broadcast_to(tokens, (len(query), dim)) if stream.num_queries == 1 else tokens[query]
    else:
        block, project = stream.attentions[-2], stream.projections[-2]
        assert isinstance(block, CrossAttention)
        before, attention = stages[-2], stream(stages, query)[1][-2]
        tokens = before.reshape(before.shape[0], -1, before.shape[-1]).astype(jnp.float32)
        token = project(block.pool(attention.reshape(*attention.shape[:2], -1), tokens))
    return token * (1 / math.sqrt(dim))


def draw_identity(identity: Identity, pixels: UInt8[np.ndarray, "b height width 3"], names: Sequence[str]) -> Figure:
    """A row per image: the image, attention before the softmax, the CAM on the same scale, their difference."""
    with style():
        figure = Figure(figsize=(6.6, 1.45 * len(pixels) + 0.5), dpi=PIXELS_PER_INCH, layout="constrained")
        axes = figure.subplots(len(pixels), 4, squeeze=False)
        largest = identity.difference.max()
        exponent = math.floor(math.log10(largest)) if largest > 0 else 0
        for row, (image, name) in enumerate(zip(pixels, names, strict=True)):
            left, right = identity.attention[row], identity.cam[row]
            scale = {"vmin": min(left.min(), right.min()), "vmax": max(left.max(), right.max()), "cmap": "cividis"}
            axes[row][0].imshow(image)
            axes[row][0].set_ylabel(name)
            axes[row][1].imshow(left, **scale)
            shared = axes[row][2].imshow(right, **scale)
            difference = identity.difference[row] / 10.0**exponent
            own = axes[row][3].imshow(difference, vmin=0, vmax=largest / 10.0**exponent, cmap="Greys")
            figure.colorbar(shared, ax=axes[row][2], fraction=0.046, label="logit")
            figure.colorbar(own, ax=axes[row][3], fraction=0.046, label=f"$10^{{{exponent}}}$")
            axes[row][3].set_xlabel(f"max {identity.difference[row].max():.1e}")
            for ax in axes[row]:
                ax.set_xticks([])
                ax.set_yticks([])
                ax.spines[:].set_visible(True)
        titles = (
            "Input image",
            "Attention before\nits softmax, $F\\,q_L/\\sqrt{d_L}$",
            "CAM $\\Sigma_k\\,\\alpha_k F^k$ with\n$\\alpha = q_L/\\sqrt{d_L}$",
            f"|attention − CAM|, max\n{largest:.1e}; bound {identity.bound.max():.1e}",
        )
        for ax, title in zip(axes[0], titles, strict=True):
            ax.set_title(title)
    return figure
