"""ROAD, remove and debias (Rong et al., ICML 2022, arXiv:2202.00449): pixels are removed by imputing them.

A removed pixel is the weighted mean of its eight neighbours, 1/6 for those beside it and 1/12 for those at its corners,
which are known or removed themselves: one linear system for all removed pixels of an image, with noise added to the
solution. What remains has no edges of the shape of the mask, which black pixels have and a network may recognise. As in
pytorch-grad-cam, 10, 20, …, 90 % of the pixels are removed, the most or the least salient first.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from castream_jax.attribution import upsample
from castream_jax.backbones.backbone import AnyArray
from castream_jax.kernels.chunks import map_chunks
from castream_jax.kernels.pixel_ranks import pixel_ranks
from castream_jax.model import Model, class_values
from castream_jax.protocol import Protocol

NOISE = 0.01  # standard deviation of what is added to imputed pixels, in normalised space
SHARES = tuple(tenth / 10 for tenth in range(1, 10))

_WEIGHTS = {(y, x): 1 / 12 if y and x else 1 / 6 for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x}
# Of the conjugate gradients: residual over right-hand side, and steps, which 224 x 224 pixels do not need.
_TOLERANCE, _STEPS = 1e-5, 2000


class _Removal(NamedTuple):
    """From an image, by the ranks of a map, the first `pixels` pixels are removed, or all but the first ones."""

    image: Int[Array, " n"]
    map: Int[Array, " n"]
    pixels: Int[Array, " n"]
    least: Bool[Array, " n"]


def road_of_maps(
    model: Model,
    pixels: Float[Array, "b height width 3"],
    maps: Sequence[Float[AnyArray, "b _h _w"]],
    target: Mapping[str, Int[Array, " b"]],
    protocol: Protocol,
    chunk: int,
) -> Float[Array, "maps 2 shares b heads"]:
    """Each head's probability of its class after the removal of each share, most salient first, then least; traceable.

    Args:
        model: backbone with heads.
        pixels: `[B, H, W, 3]` in [0, 1].
        maps: in [0, 1], enlarged to the images' size.
        target: class of each image, per head.
        protocol: decides what a probability is, which of equally salient pixels comes first, and the noise (`seed`).
        chunk: images per trunk pass.
    """
    batch, height, width = pixels.shape[:3]
    enlarged = jnp.concatenate([upsample(jnp.asarray(saliency), height, width) for saliency in maps])
    ranks = pixel_ranks(enlarged, protocol.ties).reshape(len(maps), batch, height, width)
    noise = NOISE * jax.random.normal(jax.random.key(protocol.seed), (height, width, 3))
    normalised = model.backbone.normalise(pixels)

    def run(removal: _Removal) -> Float[Array, "n heads"]:
        # The least salient pixels are the last ones: a share of them is removed when the other pixels are kept.
        rank, least = ranks[removal.map, removal.image], removal.least[:, None, None]
        count = removal.pixels[:, None, None]
        removed = jnp.where(least, rank >= height * width - count, rank < count)
        imputed = jax.vmap(lambda image, gone: impute(image, gone, noise))(normalised[removal.image], removed)
        return class_values(model.predict(model.backbone.denormalise(imputed), protocol), target, removal.image)

    counts = [round(share * height * width) for share in SHARES]
    every = np.meshgrid(np.arange(len(maps)), [False, True], counts, np.arange(batch), indexing="ij")
    number, least, count, image = (jnp.asarray(values.ravel()) for values in every)
    results = map_chunks(run, _Removal(image, number, count, least), chunk)
    return results.reshape(len(maps), 2, len(counts), batch, len(target))


def road_scores(most: Float[Array, "shares b"], least: Float[Array, "shares b"]) -> dict[str, Float[Array, "b *_s"]]:
    """`"ROAD"`, half of what the probability is higher after the removal of the least salient pixels, and its curves.

    In [-0.5, 0.5], higher is better; the mean over the shares. That of one minus the map is its negative.
    """
    return {"ROAD": (least - most).mean(0) / 2, "road_most_curve": most.T, "road_least_curve": least.T}


def impute(
    image: Float[Array, "h w c"], removed: Bool[Array, "h w"], noise: Float[Array, "h w c"] | float = 0.0
) -> Float[Array, "h w c"]:
    """`image` with the `removed` pixels, not all of them, replaced by the means of their neighbours, plus noise.

    With `W` the weights of the neighbours within the image and `D` their sums, the removed pixels `x` solve
    `D x - W x = W known`: symmetric and positive definite, so by conjugate gradients, from the mean of what is known.
    """
    gone = removed[..., None]
    sums = _neighbours(jnp.ones_like(image))
    known = jnp.where(gone, 0, image)
    mean = known.sum((0, 1), keepdims=True) / jnp.maximum((~gone).sum((0, 1), keepdims=True), 1)

    def system(x: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        return jnp.where(gone, sums * x - _neighbours(x), 0)

    solution, _ = jax.scipy.sparse.linalg.cg(
        system,
        jnp.where(gone, _neighbours(known), 0),
        x0=jnp.where(gone, mean, 0),
        tol=_TOLERANCE,
        maxiter=_STEPS,
        M=lambda x: x / sums,
    )
    return jnp.where(gone, solution + noise, image)


def _neighbours(image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """Sum of each pixel's neighbours by their weights; beyond the edge there is nothing."""
    height, width = image.shape[:2]
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
    shifted = [weight * padded[1 + y : 1 + y + height, 1 + x : 1 + x + width] for (y, x), weight in _WEIGHTS.items()]
    return jnp.stack(shifted).sum(0)
