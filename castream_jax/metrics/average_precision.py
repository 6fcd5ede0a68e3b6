"""Recognition metric of images with several labels: mean average precision over a whole data set, on the host."""

from jaxtyping import Bool, Float
import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve


def average_precision(
    scores: Float[np.ndarray, "n k"],
    positives: Bool[np.ndarray, "n k"],
    counted: Bool[np.ndarray, "n k"] | None = None,
    *,
    interpolated: bool = False,
) -> Float[np.ndarray, " k"]:
    """Average precision of each class over a whole data set; NaN for a class without a positive image.

    Args:
        scores: of each image and class; only their order within a class counts.
        positives: whether the image shows the class.
        counted: False where the image has no part in the class's ranking, as Pascal VOC wants it of an image that shows
            the class in difficult objects only; by default all have.
        interpolated: False, the sum over recall steps of precision, `sum_n (R_n - R_{n-1}) P_n` (scikit-learn, the
            official code); True, the area under the precision's falling envelope, where `P_n` is the best precision at
            any recall of at least `R_n` (PASCAL VOC's development kit, from 2010 on). The latter is never lower.

    Raises:
        ValueError: if the shapes differ, or a score is not finite.
    """
    counted = np.ones(positives.shape, bool) if counted is None else counted
    if not scores.shape == positives.shape == counted.shape or scores.ndim != 2:
        shapes = ", ".join(str(list(array.shape)) for array in (scores, positives, counted))
        raise ValueError(f"scores, positives and counted must all be [N, K], got {shapes}.")
    if not np.isfinite(scores).all():
        raise ValueError("Average precision needs finite scores: some are NaN or infinite.")
    function = _area_under_envelope if interpolated else average_precision_score
    return np.array(
        [
            function(of_class[here], column[here]) if of_class[here].any() else np.nan
            for of_class, column, here in zip(np.asarray(positives, bool).T, scores.T, counted.T, strict=True)
        ]
    )


def mean_average_precision(
    scores: Float[np.ndarray, "n k"],
    positives: Bool[np.ndarray, "n k"],
    counted: Bool[np.ndarray, "n k"] | None = None,
    *,
    interpolated: bool = False,
) -> float:
    """Mean of `average_precision` over the classes that any image shows.

    Raises:
        ValueError: if no image shows any class, or as `average_precision`.
    """
    of_class = average_precision(scores, positives, counted, interpolated=interpolated)
    if np.isnan(of_class).all():
        raise ValueError("Mean average precision needs at least one positive image.")
    return float(np.nanmean(of_class))


def resampled_average_precision(
    scores: Float[np.ndarray, " n"], positives: Bool[np.ndarray, " n"], times: Float[np.ndarray, "r n"]
) -> Float[np.ndarray, " r"]:
    """`average_precision` of one class where image i is there `times[r, i]` times, for every r; NaN without positives.

    scikit-learn does the same with sample weights, one resample at a time.
    """
    order = np.argsort(-scores, kind="stable")
    last_of_equals = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    times = times[:, order]
    seen, hits = (np.cumsum(weights, axis=1)[:, last_of_equals] for weights in (times, times * positives[order]))
    precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
    found = hits[:, -1]
    area = (precision * np.diff(hits, axis=1, prepend=0)).sum(axis=1)
    return np.divide(area, found, out=np.full(len(area), np.nan), where=found > 0)


def _area_under_envelope(positives: Bool[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> float:
    precision, recall, _ = precision_recall_curve(positives, scores)  # by falling recall
    return float(-np.sum(np.diff(recall) * np.maximum.accumulate(precision[:-1])))
