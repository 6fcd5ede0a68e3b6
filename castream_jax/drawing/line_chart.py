"""Lines with their bands: on any axes, and as a chart of a page of HTML."""

from collections.abc import Sequence
import math
from typing import NamedTuple

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
import numpy as np

from castream_jax.drawing.style import REFERENCE_STYLE, STREAM_STYLES, LineStyle
from castream_jax.drawing.titles import REFERENCE_HEAD, head_title
from castream_jax.drawing.web_pictures import INK, css_color, inline_svg, web_style

# In points, which are the page's pixels at phone width: text then has its natural size.
WIDTH, HEIGHT = 360, 236
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 14, 10, 40

_MARKERS_UP_TO = 12  # points

PLAIN = LineStyle(INK)


class Series(NamedTuple):
    """One line, and the lower and upper edge of a band around it."""

    label: str
    style: LineStyle
    x: Float[np.ndarray, " points"]
    y: Float[np.ndarray, " points"]
    band: tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]] | None = None


class LegendEntry(NamedTuple):
    """What tells a line from the others: CSS colour and `stroke-dasharray`."""

    label: str
    color: str
    dashes: str


class Chart(NamedTuple):
    """A chart of a page: `svg` is the content of an `<svg>` element, `description` its text for screen readers."""

    title: str
    description: str
    svg: str
    legend: list[LegendEntry]
    width: int = WIDTH
    height: int = HEIGHT


def head_style(head: str, heads: Sequence[str]) -> LineStyle:
    """How the lines of a head look: the same in every figure over these heads."""
    if head == REFERENCE_HEAD:
        return REFERENCE_STYLE
    streams = [name for name in heads if name != REFERENCE_HEAD]
    return STREAM_STYLES[streams.index(head) % len(STREAM_STYLES)]


def head_series(head: str, heads: Sequence[str], x: np.ndarray, y: np.ndarray, band: tuple | None = None) -> Series:
    """The line of one of several heads."""
    return Series(head_title(head), head_style(head, heads), x, y, band)


def draw_series(ax: Axes, series: Series) -> Line2D:
    """Draws one line over its band."""
    gid = f"tip:{series.label}"
    color, dashes = series.style.color, series.style.pattern
    # Not clipped: the axes cover all of it, and half of a line at their edge would be cut off.
    (line,) = ax.plot(series.x, series.y, color=color, linestyle=dashes, clip_on=False, gid=gid)
    if series.band is not None:
        ax.fill_between(series.x, *series.band, color=color, alpha=0.2, linewidth=0, clip_on=False, gid=gid)
    return line


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_limits: tuple[float, float] | None = None,
    y_most: float = math.inf,
) -> Chart:
    """Draws lines that share one pair of axes.

    Args:
        title: what the y axis measures, with its unit.
        series: at least one line of at least one finite point.
        x_label: printed below the x axis.
        y_limits: range that the y axis covers at least; by default that of the data.
        y_most: where the y axis ends at the latest, such as 100 %.
    """
    lower = [s.y if s.band is None else s.band[0] for s in series]
    upper = [s.y if s.band is None else s.band[1] for s in series]
    y_min, y_max = y_limits or (min(map(np.min, lower)), max(map(np.max, upper)))
    x_min, x_max = min(0.0, *(np.min(s.x) for s in series)), max(np.max(s.x) for s in series)
    y_ticks = [value for value in _ticks(y_min, y_max) if value <= max(y_most, y_max)]
    # The y axis ends on ticks, the x axis, which starts at 0, on the data: time should fill the width.
    x_low, x_high = (x_min, x_max) if x_max > x_min else (x_min - 0.5, x_max + 0.5)
    x_ticks = [value for value in _ticks(x_low, x_high) if x_low <= value <= x_high]
    with web_style(f"{title} {x_label}"):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72, frameon=False)
        width, height = (WIDTH - _LEFT - _RIGHT) / WIDTH, (HEIGHT - _TOP - _BOTTOM) / HEIGHT
        ax = figure.add_axes((_LEFT / WIDTH, _BOTTOM / HEIGHT, width, height), frameon=False)
        ax.grid(axis="y")
        for one in series:
            line = draw_series(ax, one)
            if len(one.x) <= _MARKERS_UP_TO:
                line.set(marker="o", markersize=5, markeredgewidth=0)
        ax.set_xticks(x_ticks, [_tick_label(value) for value in x_ticks])
        ax.set_yticks(y_ticks, [_tick_label(value) for value in y_ticks])
        ax.set(xlim=(x_low, x_high), ylim=(y_ticks[0], max(y_ticks[-1], y_max)), xlabel=x_label)
        svg = inline_svg(figure)
    description = "; ".join(f"{s.label} from {s.y[0]:.3g} to {s.y[-1]:.3g}" for s in series)
    told_apart = (s for s in series if s.style != PLAIN)
    return Chart(title, description, svg, [_legend_entry(s) for s in told_apart])


def legend_of(charts: Sequence[Chart]) -> list[LegendEntry]:
    """Every line of these charts that is told apart by its style, each once."""
    return list(dict.fromkeys(entry for chart in charts for entry in chart.legend))


def _legend_entry(series: Series) -> LegendEntry:
    dashes = " ".join(str(2 * length) for length in series.style.dashes)  # lines are two points wide
    return LegendEntry(series.label, css_color(series.style.color), dashes)


def _ticks(low: float, high: float) -> list[float]:
    if high <= low:
        low, high = (low - 0.5, low + 0.5) if low == 0 else (low - abs(low) / 2, low + abs(low) / 2)
    return [float(value) for value in MaxNLocator(nbins=5, min_n_ticks=3).tick_values(low, high)]


def _tick_label(value: float) -> str:
    return f"{round(value, 12):.4g}".replace("-", "−")
