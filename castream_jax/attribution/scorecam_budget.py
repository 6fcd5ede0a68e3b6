"""What a budget of channels costs Score-CAM in accuracy, and saves in trunk passes."""

from collections.abc import Sequence
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int
import numpy as np

from castream_jax.attribution.attribute import check_labels, to_map
from castream_jax.attribution.chunk_size import chunk_for
from castream_jax.attribution.gradcam import weighted
from castream_jax.attribution.inputs import Inputs
from castream_jax.attribution.scorecam import channel_scores, channel_weights, most_active
from castream_jax.backbones.backbone import AnyArray
from castream_jax.model import Model
from castream_jax.protocol import Protocol, get_protocol
from castream_jax.runtime.mesh import over_images, sharding_of

Errors = dict[str, dict[int, dict[str, Float[np.ndarray, " b"]]]]


def scorecam_budget_error(
    model: Model,
    pixels: Float[AnyArray, "b height width 3"],
    labels: Int[AnyArray, "..."],
    budgets: Sequence[int],
    protocol: str | Protocol = "castream",
    *,
    chunk: int | None = None,
) -> Errors:
    """Score-CAM of the `k` most active channels (`Protocol.scorecam_channels`) against Score-CAM of all.

    Every channel is scored once; the map of every budget follows from that.

    Args:
        model: backbone with heads.
        pixels: `[B, H, W, 3]` in [0, 1].
        labels: ground-truth classes `[B]`.
        budgets: numbers of channels `k`.
        protocol: name or `Protocol`.
        chunk: masked images per trunk pass, at most.

    Returns:
        `{head: {k: {"max", "mean", "rank_correlation": [B]}}}`: the largest and the mean difference of the two maps
        in [0, 1], and Spearman's correlation of their positions' order, which is what insertion and deletion go by
        (two constant maps have 1, one of them 0).

    Raises:
        ValueError: for a budget that is not between 1 and the number of channels, or labels that do not fit.
    """
    protocol = get_protocol(protocol)
    labels = check_labels(model, pixels, labels)
    chunk = chunk_for(model, *pixels.shape[1:3]) if chunk is None else chunk
    graphdef, state = nnx.split(model)
    maps = _maps(graphdef, state, pixels, labels, tuple(budgets), protocol, chunk, sharding_of(pixels))
    return {
        head: {k: _errors(np.asarray(of_budget[k]), np.asarray(exact)) for k in budgets}
        for head, (exact, of_budget) in maps.items()
    }


@functools.partial(jax.jit, static_argnames=("graphdef", "budgets", "protocol", "chunk", "sharding"))
def _maps(
    graphdef: nnx.GraphDef,
    state: Any,
    pixels: Array,
    labels: Array,
    budgets: tuple[int, ...],
    protocol: Protocol,
    chunk: int,
    sharding: NamedSharding | None,
) -> dict[str, tuple[Array, dict[int, Array]]]:
    def run(state: Any, pixels: Array, labels: Array) -> dict[str, tuple[Array, dict[int, Array]]]:
        inputs = Inputs(nnx.merge(graphdef, state), pixels, labels, protocol, chunk)
        features = inputs.features
        num_channels = features.shape[-1]
        if not all(1 <= k <= num_channels for k in budgets):
            raise ValueError(f"A budget is a number of channels, 1 … {num_channels}; got {list(budgets)}.")

        def saliency(scores: Array, channels: Array) -> Array:
            chosen = jnp.take_along_axis(scores, channels, axis=1)
            return to_map(weighted(features, channel_weights(chosen, channels, inputs)), inputs)

        everything = most_active(features, 0)
        return {
            head: (
                saliency(scores, everything),
                {k: saliency(scores, most_active(features, k)) for k in budgets},
            )
            for head, scores in channel_scores(inputs, everything).items()
        }

    return over_images(run, sharding)(state, pixels, labels)


def _errors(maps: Float[np.ndarray, "b h w"], exact: Float[np.ndarray, "b h w"]) -> dict[str, Float[np.ndarray, " b"]]:
    difference = np.abs(maps - exact)
    return {
        "max": difference.max((1, 2)),
        "mean": difference.mean((1, 2)),
        "rank_correlation": np.array([_spearman(a.ravel(), b.ravel()) for a, b in zip(maps, exact, strict=True)]),
    }


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float(np.ptp(a) == np.ptp(b))
    from scipy.stats import rankdata  # takes half a second, which `castream explain` need not wait

    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
