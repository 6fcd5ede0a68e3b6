"""Score-CAM (Wang et al., 2020): a channel weighs what the class is worth on the image masked by that channel.

One trunk pass per mask serves all heads. Jobs are pairs of image and channel, over the whole batch; a mask exists only
while its chunk is scored. A constant channel shows nothing: all of an image's constant channels are one black image,
which is scored once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from castream_jax.attribution.gradcam import weighted
from castream_jax.attribution.inputs import Inputs
from castream_jax.attribution.masked_images import enlarge, interpolation_matrix, masked
from castream_jax.attribution.methods import register_method
from castream_jax.attribution.saliency import min_max
from castream_jax.kernels.chunks import map_first_chunks


class _ChannelMask(NamedTuple):
    """One of an image's channels, enlarged to mask it."""

    image: Int[Array, " jobs"]
    channel: Int[Array, " jobs"]


@register_method("scorecam", chunked=True, paper="Wang et al., CVPR Workshops 2020, arXiv:1910.01279")
def scorecam(inputs: Inputs) -> dict[str, Float[Array, "b h w"]]:
    """`relu(sum_k w_k F_k)`, over the `protocol.scorecam_channels` most active channels, or all of them."""
    channels = most_active(inputs.features, inputs.protocol.scorecam_channels)
    return {
        head: weighted(inputs.features, channel_weights(scores, channels, inputs))
        for head, scores in channel_scores(inputs, channels).items()
    }


def most_active(features: Float[Array, "b h w d"], count: int) -> Int[Array, "b k"]:
    """Each image's `count` channels of the largest span, maximum minus minimum over positions; 0: all channels.

    What a channel adds to a map is its weight, at most 1, times the channel: the span bounds what leaving it out
    changes.
    """
    batch, *_, num_channels = features.shape
    if not 0 < count < num_channels:
        return jnp.broadcast_to(jnp.arange(num_channels), (batch, num_channels))
    return jax.lax.top_k(_span(features), count)[1]


def channel_scores(inputs: Inputs, channels: Int[Array, "b k"]) -> dict[str, Float[Array, "b k"]]:
    """What the class of each image is worth on the image masked by each of its `channels`, under each head.

    A probability, or a logit where the weights are to be a softmax of these.
    """
    model, pixels, features, protocol = inputs.model, inputs.pixels, inputs.features, inputs.protocol
    batch, count = channels.shape
    aligned = protocol.scorecam_mask == "resize_then_min_max"
    rows, columns = (
        interpolation_matrix(small, large, align_corners=aligned)
        for small, large in zip(features.shape[1:3], pixels.shape[1:3], strict=True)
    )

    def run(jobs: _ChannelMask) -> Float[Array, "jobs heads"]:
        channel = features[jobs.image, :, :, jobs.channel]
        # From 0 up, so that rounding is relative to the span, and a constant channel is exactly constant.
        channel = channel - channel.min((1, 2), keepdims=True)
        masks = min_max(enlarge(rows, channel, columns)) if aligned else enlarge(rows, min_max(channel), columns)
        score = inputs.class_probabilities if protocol.scorecam_weight == "class_probability" else inputs.class_logits
        return score(masked(model.backbone, pixels[jobs.image], masks, protocol), jobs.image)

    # The jobs that must run come first: every channel that varies, and the first constant one of each image.
    constant = jnp.take_along_axis(_span(features), channels, axis=1) == 0
    first_constant = constant & (jnp.cumsum(constant, axis=1) == 1)
    wanted = (~constant | first_constant).reshape(-1)
    order = jnp.argsort(~wanted, stable=True)
    jobs = _ChannelMask(order // count, channels.reshape(-1)[order])
    results = map_first_chunks(run, jobs, wanted.sum(), inputs.chunk)
    scores = jnp.zeros_like(results).at[order].set(results, unique_indices=True).reshape(batch, count, -1)
    black = jnp.take_along_axis(scores, first_constant.argmax(1)[:, None, None], axis=1)
    scores = jnp.where(constant[..., None], black, scores)
    return {head: scores[..., number] for number, head in enumerate(model.heads)}


def channel_weights(scores: Float[Array, "b k"], channels: Int[Array, "b k"], inputs: Inputs) -> Float[Array, "b d"]:
    """Weights of all channels from the scores of some; the others weigh 0."""
    if inputs.protocol.scorecam_weight == "channel_softmax":
        scores = jax.nn.softmax(scores)
    zeros = jnp.zeros((scores.shape[0], inputs.features.shape[-1]), scores.dtype)
    return jax.vmap(lambda row, index, values: row.at[index].set(values, unique_indices=True))(zeros, channels, scores)


def _span(features: Float[Array, "b h w d"]) -> Float[Array, "b d"]:
    return features.max((1, 2)) - features.min((1, 2))
