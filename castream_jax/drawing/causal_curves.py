"""Insertion and deletion curves with their bands: as charts of a page, and as a figure for print."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
import numpy as np

from castream_jax.drawing.line_chart import Chart, Series, draw_series, head_series, line_chart
from castream_jax.drawing.style import PIXELS_PER_INCH, style
from castream_jax.drawing.titles import head_title, method_title

# (head, method, "insertion" or "deletion") -> `mean`, `low` and `high` at equal steps of the share of pixels.
Curves = Mapping[tuple[str, str, str], Mapping[str, Any]]

KINDS = {"insertion": ("inserted", "↑"), "deletion": ("deleted", "↓")}


def causal_charts(curves: Curves, heads: Sequence[str], methods: Sequence[str]) -> dict[str, list[Chart]]:
    """Charts of each kind, one for each method that has the curves, all on one scale of probability."""
    limits = (0.0, min(max(max(curve["high"]) for curve in curves.values()), 1.0))
    return {
        kind: [
            line_chart(method_title(method), list(lines.values()), f"pixels {verb} (%)", y_limits=limits)
            for method in methods
            if (lines := dict(_lines(curves, heads, method, kind)))
        ]
        for kind, (verb, _) in KINDS.items()
    }


def causal_figure(curves: Curves, heads: Sequence[str], methods: Sequence[str]) -> Figure:
    """Insertion above deletion, a column for each attribution method."""
    with style():
        figure = Figure(figsize=(max(1.75 * len(methods) + 0.3, 3.4), 4.1), dpi=PIXELS_PER_INCH, layout="constrained")
        axes = figure.subplots(2, len(methods), squeeze=False, sharey=True, sharex=True)
        drawn = {}
        for row, (kind, (verb, arrow)) in zip(axes, KINDS.items(), strict=True):
            for ax, method in zip(row, methods, strict=True):
                for head, series in _lines(curves, heads, method, kind):
                    drawn[head] = draw_series(ax, series)
                ax.set_title(f"{method_title(method)}\n{kind} {arrow}")
                ax.set_xlabel(f"pixels {verb} (%)")
                ax.xaxis.set_tick_params(labelbottom=True)
                ax.set_xticks([0, 25, 50, 75, 100])
                ax.grid(axis="y", linewidth=0.4, alpha=0.5)
                ax.set_ylim(0, None)
            row[0].set_ylabel("probability of the class")
        columns = min(len(drawn), int(figure.get_figwidth() / 1.1))
        figure.legend(list(drawn.values()), list(map(head_title, drawn)), loc="outside lower center", ncols=columns)
    return figure


def _lines(curves: Curves, heads: Sequence[str], method: str, kind: str) -> Iterator[tuple[str, Series]]:
    for head in heads:
        if curve := curves.get((head, method, kind)):
            mean, low, high = (np.asarray(curve[name]) for name in ("mean", "low", "high"))
            yield head, head_series(head, heads, np.linspace(0, 100, len(mean)), mean, (low, high))
