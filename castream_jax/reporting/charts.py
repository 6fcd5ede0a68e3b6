"""Line charts as inline SVG.

The page has two themes, and matplotlib's SVG fixes every colour. So Python computes positions (ticks from
matplotlib's locator) and `chart.svg.j2` draws with CSS classes and `currentColor`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import NamedTuple

from jaxtyping import Float
from matplotlib.ticker import MaxNLocator
import numpy as np

# In units of the viewBox, chosen so that text has its natural size (12 px) at phone width.
WIDTH, HEIGHT = 360, 236
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 10, 40

MAX_POINTS = 300
MARKERS_UP_TO = 12


@dataclass(frozen=True)
class Series:
    """One line: `style` its CSS class, `band` the lower and the upper edge of a band around it."""

    label: str
    style: str
    x: Float[np.ndarray, " points"]
    y: Float[np.ndarray, " points"]
    band: tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]] | None = None


class Tick(NamedTuple):
    position: float
    label: str


class Line(NamedTuple):
    label: str
    style: str
    points: str
    band: str
    markers: list[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """Everything `chart.svg.j2` draws; positions in units of the viewBox."""

    title: str
    description: str
    x_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Line]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def line_chart(
    title: str, series: Sequence[Series], x_label: str, y_limits: tuple[float, float] | None = None
) -> Chart:
    """Lays out lines that share one pair of axes.

    Args:
        title: what the y axis measures, with its unit.
        series: at least one line of at least one finite point.
        x_label: printed below the x axis.
        y_limits: range that the y axis covers at least; by default that of the data.
    """
    lower = [s.y if s.band is None else s.band[0] for s in series]
    upper = [s.y if s.band is None else s.band[1] for s in series]
    y_min, y_max = y_limits or (min(map(np.min, lower)), max(map(np.max, upper)))
    x_min, x_max = min(0.0, *(np.min(s.x) for s in series)), max(np.max(s.x) for s in series)
    y_values = _tick_values(y_min, y_max)
    # The y axis ends on ticks, the x axis, which starts at 0, on the data: time should fill the width.
    x_low, x_high = (x_min, x_max) if x_max > x_min else (x_min - 0.5, x_max + 0.5)
    x_values = [v for v in _tick_values(x_low, x_high) if x_low <= v <= x_high]

    def x_position(x: float) -> float:
        return round(LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT), 1)

    def y_position(y: float) -> float:
        share = (y - y_values[0]) / (y_values[-1] - y_values[0])
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    lines = []
    for s, low, high in zip(series, lower, upper, strict=True):
        positions = [(x_position(x), y_position(y)) for x, y in zip(s.x, s.y, strict=True)]
        band = ""
        if s.band is not None:
            there = [(x_position(x), y_position(y)) for x, y in zip(s.x, high, strict=True)]
            back = [(x_position(x), y_position(y)) for x, y in zip(s.x, low, strict=True)]
            band = _points(there + back[::-1])
        markers = positions if len(positions) <= MARKERS_UP_TO else []
        lines.append(Line(s.label, s.style, _points(positions), band, markers))
    return Chart(
        title=title,
        description="; ".join(f"{s.label} from {s.y[0]:.3g} to {s.y[-1]:.3g}" for s in series),
        x_label=x_label,
        x_ticks=[Tick(x_position(v), _tick_label(v)) for v in x_values],
        y_ticks=[Tick(y_position(v), _tick_label(v)) for v in y_values],
        lines=lines,
    )


def legend_entries(charts: Sequence[Chart]) -> list[tuple[str, str]]:
    """(label, style) of every line of these charts that is told apart by its style, each once."""
    return list(dict.fromkeys((line.label, line.style) for chart in charts for line in chart.lines if line.style))


def thin(values: Float[np.ndarray, " points"]) -> Float[np.ndarray, " fewer"]:
    """Averages consecutive values until at most `MAX_POINTS` are left: more than a screen can show."""
    group = math.ceil(len(values) / MAX_POINTS)
    if group <= 1:
        return values
    starts = np.arange(0, len(values), group)
    return np.add.reduceat(values, starts) / np.diff(starts, append=len(values))


def _tick_values(low: float, high: float) -> list[float]:
    if high <= low:
        low, high = (low - 0.5, low + 0.5) if low == 0 else (low - abs(low) / 2, low + abs(low) / 2)
    return [float(v) for v in MaxNLocator(nbins=5, min_n_ticks=3).tick_values(low, high)]


def _tick_label(value: float) -> str:
    return f"{round(value, 12):.4g}".replace("-", "−")


def _points(positions: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in positions)
