"""Statistics over images: bootstrap intervals of means (Efron, 1979) and the sign test of paired differences.

Everything resamples and counts *images*: an image with several labels has several rows, which are not independent.
"""

from collections.abc import Iterator
from typing import NamedTuple

from jaxtyping import Float, Float32, Int
import numpy as np
import scipy.stats

CONFIDENCE = 0.95
RESAMPLES = 10_000
SEED = 0

# Results repeat to 1e-6 on any number of devices: smaller differences have no sign, neither an image's nor the end of
# an interval, which is 0 where most images tie.
TIE = 1e-6

# Draws held at a time; bounds the memory, not the numbers.
_DRAWS = 4_000_000


class SignTest(NamedTuple):
    """Images whose difference is positive, negative and neither; `p` is two-sided, exact, over the first two."""

    higher: int
    lower: int
    ties: int
    p: float


def bootstrap_means(
    values: Float[np.ndarray, "rows columns"],
    images: Int[np.ndarray, " rows"],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Float[np.ndarray, "{resamples} columns"]:
    """Mean over rows of each column, in data sets whose images are drawn with replacement from those given.

    A resample is how often it drew each image, so all of them together are one matrix of counts, multiplied by the
    values block by block. Every column sees the same draws: the difference of two columns of the result is the
    bootstrap of the paired difference. The order of rows does not matter.
    """
    means = values.mean(axis=0, dtype=np.float64)
    rows_of_image, sums = _sum_per_image(values - means, images)  # centred, so that float32 is exact enough below
    columns = np.concatenate([sums, rows_of_image[:, None]], axis=1).astype(np.float32)
    totals = np.concatenate([times @ columns for times in bootstrap_counts(len(columns), resamples, seed)])
    return means + totals[:, :-1] / totals[:, -1:].astype(np.float64)


def bootstrap_counts(
    images: int, resamples: int = RESAMPLES, seed: int = SEED
) -> Iterator[Float32[np.ndarray, "block images"]]:
    """How often each resample draws each of `images` images, a block of resamples at a time."""
    rng = np.random.default_rng(seed)
    block = max(1, _DRAWS // images)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = rng.integers(0, images, (size, images)) + images * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * images).reshape(size, images).astype(np.float32)


def interval(samples: Float[np.ndarray, "resamples *columns"]) -> Float[np.ndarray, "2 *columns"]:
    """Lower and upper end of the percentile interval that holds `CONFIDENCE` of the resamples; 0 within `TIE` of it."""
    tail = (1 - CONFIDENCE) / 2
    ends = np.quantile(samples, [tail, 1 - tail], axis=0)
    return np.where(np.abs(ends) < TIE, 0.0, ends)


def sign_test(differences: Float[np.ndarray, " rows"], images: Int[np.ndarray, " rows"]) -> SignTest:
    """Whether more images have a positive than a negative (mean) difference than a fair coin would give."""
    rows_of_image, sums = _sum_per_image(differences[:, None], images)
    image_means = sums[:, 0] / rows_of_image
    higher, lower = int(np.sum(image_means > TIE)), int(np.sum(image_means < -TIE))
    p = float(scipy.stats.binomtest(higher, higher + lower).pvalue) if higher + lower else 1.0
    return SignTest(higher, lower, len(image_means) - higher - lower, p)


def _sum_per_image(
    values: Float[np.ndarray, "rows columns"], images: Int[np.ndarray, " rows"]
) -> tuple[Int[np.ndarray, " images"], Float[np.ndarray, "images columns"]]:
    """How many rows each image has, and their sums; images in ascending order."""
    order = np.argsort(images, kind="stable")
    _, starts, counts = np.unique(images[order], return_index=True, return_counts=True)
    return counts, np.add.reduceat(values[order].astype(np.float64, copy=False), starts, axis=0)
