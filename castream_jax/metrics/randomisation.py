"""Sanity check (Adebayo et al., 2018): a map that explains a model must change when the model's weights do.

The weights above the trunk are drawn anew, from the classifier down to the stream's first block, each stage on top of
the ones before (the paper's cascading randomisation; the trunk, which all heads share, stays). Each stage's maps are
compared with the trained model's by rank correlation: 1 says that the map does not depend on these weights.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

from flax import nnx
import jax
from jaxtyping import Float, Int
import numpy as np
import scipy.stats

from castream_jax.attribution.attribute import Maps, attribute
from castream_jax.backbones import ImportedBackbone, load_torch_state_dict, torch_state_dict
from castream_jax.backbones.backbone import AnyArray
from castream_jax.backbones.load import fresh_classifier
from castream_jax.model import Model
from castream_jax.protocol import Protocol, get_protocol
from castream_jax.runtime.seeds import seeded_rngs
from castream_jax.stream import CrossAttentionStream

NOTHING = "nothing"
CLASSIFIER = "classifier"


def cascading_randomisation(
    model: Model,
    pixels: Float[AnyArray, "b height width 3"],
    labels: Int[AnyArray, "..."],
    methods: Sequence[str] = ("gradcam", "attention"),
    protocol: str | Protocol = "castream",
    *,
    seed: int = 0,
    chunk: int | None = None,
) -> list[dict[str, Any]]:
    """Rank correlation of the model's maps with those of the model that is random from the top down to each stage.

    The class explained is the label, whichever the protocol explains: a random model predicts others.

    Args:
        model: backbone with heads; left as it is.
        pixels, labels: as of `attribute`.
        methods: as of `attribute`.
        protocol: name or `Protocol`.
        seed: of the new weights.
        chunk: as of `attribute`.

    Returns:
        Rows `{"randomised", "head", "method", "rank_correlation"}`: the mean over images, for `"nothing"` (1, unless
        the method itself is random), `"classifier"`, then `"S4"`, `"S3"`, … down to the first stage that any stream
        reads. A stage's cross attention and projection, and the token where the stream starts, are drawn as a new
        stream draws them.
    """
    protocol = dataclasses.replace(get_protocol(protocol), target_class="label")
    changed = nnx.clone(model)
    streams = [head for head in changed.heads.values() if isinstance(head, CrossAttentionStream)]
    # Seeds far from those that people choose: the new weights must not happen to be the old ones.
    classifier_seed, *stream_seeds = np.random.SeedSequence(seed).generate_state(1 + len(streams)).tolist()
    new_streams = [_new_stream(model, stream, its) for stream, its in zip(streams, stream_seeds, strict=True)]
    last = len(model.backbone.stage_dims) - 1
    first = min((stream.start_stage for stream in streams), default=last + 1)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, nnx.state(model))

    def maps_of(model: Model) -> Maps:
        # JAX compiles anew for arrays that have come by another way: each goes where the one lay that it replaces.
        graphdef, state = nnx.split(model)
        placed = nnx.merge(graphdef, jax.device_put(state, shardings))
        return attribute(placed, pixels, labels, methods, protocol, chunk=chunk)

    original = maps_of(model)
    rows = []
    for stage in (NOTHING, CLASSIFIER, *range(last, first - 1, -1)):
        if stage == CLASSIFIER:
            _randomise_classifier(changed, classifier_seed)
        elif isinstance(stage, int):
            for stream, new in zip(streams, new_streams, strict=True):
                _replace_block(stream, new, stage)
        maps = maps_of(changed)
        rows += [
            {
                "randomised": f"S{stage}" if isinstance(stage, int) else stage,
                "head": head,
                "method": method,
                "rank_correlation": float(rank_correlation(original[head, method], saliency).mean()),
            }
            for (head, method), saliency in maps.items()
        ]
    return rows


def rank_correlation(a: Float[AnyArray, "b h w"], b: Float[AnyArray, "b h w"]) -> Float[np.ndarray, " b"]:
    """Spearman's rank correlation of each image's two maps, equal values sharing their mean rank.

    A constant map ranks nothing: its correlation with any other map is 0, and with another constant map 1.
    """
    ranks = [scipy.stats.rankdata(np.asarray(maps).reshape(len(maps), -1), axis=1) for maps in (a, b)]
    deviations = [of_maps - of_maps.mean(1, keepdims=True) for of_maps in ranks]
    covariance = (deviations[0] * deviations[1]).sum(1)
    spread = np.sqrt((deviations[0] ** 2).sum(1) * (deviations[1] ** 2).sum(1))
    constant = [~of_maps.any(1) for of_maps in deviations]
    return np.divide(covariance, spread, out=(constant[0] & constant[1]).astype(float), where=spread > 0)


def _new_stream(model: Model, stream: CrossAttentionStream, seed: int) -> CrossAttentionStream:
    return CrossAttentionStream(
        model.backbone.stage_dims,
        start_stage=stream.start_stage,
        block="proj_ca" if stream.block == "proj_ca" else "ca",
        num_queries=stream.num_queries,
        num_heads=stream.num_heads,
        use_bias=stream.use_bias,
        rngs=seeded_rngs(seed),
    )


def _replace_block(stream: CrossAttentionStream, new: CrossAttentionStream, stage: int) -> None:
    """Gives `stream` the parameters of `new` at `stage`, if it reads that stage."""
    block = stage - stream.start_stage
    if block < 0:
        return
    nnx.update(stream.attentions[block], nnx.state(new.attentions[block]))
    nnx.update(stream.projections[block], nnx.state(new.projections[block]))
    if block == 0:
        stream.cls_token.set_value(new.cls_token[...])


def _randomise_classifier(model: Model, seed: int) -> None:
    """Gives the backbone's last linear layer the parameters of a new one."""
    backbone = model.backbone
    if isinstance(backbone, ImportedBackbone):
        backbone.randomise_classifier(seed)
        return
    load_torch_state_dict(backbone, torch_state_dict(backbone) | fresh_classifier(backbone, seed))
