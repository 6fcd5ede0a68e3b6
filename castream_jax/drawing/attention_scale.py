"""Attention on a scale that is the same for every picture: how many times the uniform attention a position has.

Scaled from its least to its greatest value, a map that is nearly uniform looks as decided as one that sees one spot.
"""

from jaxtyping import Float
import numpy as np

# Multiples of uniform attention that a legend shows; the scale has no end.
_MARKS = {0.0: "0", 1 / 3: "⅓", 1.0: "1", 3.0: "3", 9.0: "9"}


def scale_marks() -> list[tuple[float, str]]:
    """Places on the scale of colours, from 0 to 1, and what is written there."""
    return list(zip(on_scale(np.array(list(_MARKS))).tolist(), _MARKS.values(), strict=True))


def on_scale(ratios: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Multiples of uniform attention as places on the scale of colours: `r / (1 + r)`, uniform in the middle.

    >>> on_scale(np.array([0.0, 1.0, 3.0])).tolist()
    [0.0, 0.5, 0.75]
    """
    return ratios / (1 + ratios)


def stretched_to_ratios(saliency: Float[np.ndarray, "h w"], low: float, high: float) -> Float[np.ndarray, "h w"]:
    """Undoes min-max: a map in [0, 1] whose attention ran from `low` to `high` times the uniform one."""
    return low + saliency * (high - low)


def ratio_text(highest: float) -> str:
    """What stands beside a map on this scale."""
    return f"at most {highest:.{1 if highest < 100 else 0}f} × uniform"
