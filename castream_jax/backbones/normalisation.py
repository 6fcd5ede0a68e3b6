"""The normalisation of pixels that a network was trained with."""

from collections.abc import Sequence
import math


def normalisation(mean: Sequence[float], std: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of red, green and blue, as they are.

    Raises:
        ValueError: if one is not three finite numbers, a deviation is not above zero, or they are of 8-bit pixels.
    """
    means, deviations = _numbers("mean", mean), _numbers("std", std)
    if min(deviations) <= 0:
        raise ValueError(f"std must be three numbers, above zero, of red, green and blue, got {deviations}.")
    if min(means) < 0 or max(means) > 1 or max(deviations) > 1:
        mend = ": divide by 255" if max(*means, *deviations) > 1 else ""
        raise ValueError(f"mean and std are of pixels in [0, 1]{mend}, got mean {means} and std {deviations}.")
    return means, deviations


def _numbers(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, values))
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        above = ", above zero" if name == "std" else ""
        raise ValueError(f"{name} must be three numbers{above}, of red, green and blue, got {values!r}.")
    return numbers
