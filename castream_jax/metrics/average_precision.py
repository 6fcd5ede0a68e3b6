"""Recognition metric of images with several labels: mean average precision over a whole data set, on the host."""

from jaxtyping import Bool, Float
import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve


def average_precision(
    scores: Float[np.ndarray, "n k"], positives: Bool[np.ndarray, "n k"], *, interpolated: bool = False
) -> Float[np.ndarray, " k"]:
    """Average precision of each class over a whole data set; NaN for a class without a positive image.

    Args:
        scores: of each image and class; only their order within a class counts.
        positives: whether the image shows the class.
        interpolated: False, the sum over recall steps of precision, `sum_n (R_n - R_{n-1}) P_n` (scikit-learn, the
            official code); True, the area under the precision's falling envelope, where `P_n` is the best precision at
            any recall of at least `R_n` (PASCAL VOC's development kit, from 2010 on). The latter is never lower.

    Raises:
        ValueError: if the shapes differ, or a score is not finite.
    """
    if scores.shape != positives.shape or scores.ndim != 2:
        raise ValueError(
            f"scores and positives must both be [N, K], got {list(scores.shape)} and {list(positives.shape)}."
        )
    if not np.isfinite(scores).all():
        raise ValueError("Average precision needs finite scores: some are NaN or infinite.")
    function = _area_under_envelope if interpolated else average_precision_score
    return np.array(
        [
            function(of_class, column) if of_class.any() else np.nan
            for of_class, column in zip(np.asarray(positives, bool).T, scores.T, strict=True)
        ]
    )


def mean_average_precision(
    scores: Float[np.ndarray, "n k"], positives: Bool[np.ndarray, "n k"], *, interpolated: bool = False
) -> float:
    """Mean of `average_precision` over the classes that any image shows.

    Raises:
        ValueError: if no image shows any class, or as `average_precision`.
    """
    of_class = average_precision(scores, positives, interpolated=interpolated)
    if np.isnan(of_class).all():
        raise ValueError("Mean average precision needs at least one positive image.")
    return float(np.nanmean(of_class))


def _area_under_envelope(positives: Bool[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> float:
    precision, recall, _ = precision_recall_curve(positives, scores)  # by falling recall
    return float(-np.sum(np.diff(recall) * np.maximum.accumulate(precision[:-1])))
