"""Figures of what evaluations measured: insertion and deletion curves, accuracy against parameters."""

from collections.abc import Mapping, Sequence
import itertools
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from castream_jax.drawing.causal_curves import causal_figure
from castream_jax.drawing.style import COLORS, GREY, MARKERS, PIXELS_PER_INCH, style
from castream_jax.drawing.titles import REFERENCE_HEAD
from castream_jax.reporting.measured_curves import read_causal_curves
from castream_jax.reporting.metric_table import ordered_heads, ordered_methods


class Placement(NamedTuple):
    """One stream: the stages it reads, its parameters, accuracy in percent and the ends of its 95 % interval.

    Attributes:
        paper: published accuracy in percent, None where it may not stand beside ours.
    """

    label: str
    parameters: int
    accuracy: float
    low: float
    high: float
    paper: float | None = None


def draw_curves(path: Path, summary: Mapping[str, Any], shown: Sequence[str] = ()) -> Figure:
    """Insertion above deletion, a column per attribution method; bands are 95 % intervals of the mean.

    Args:
        path: `evaluation/curves.parquet`.
        summary: contents of `evaluation/summary.json`.
        shown: heads; by default all.

    Raises:
        ValueError: if the evaluation kept no curves.
    """
    curves = read_causal_curves(path)
    if not curves:
        raise ValueError(f"{path} is absent: evaluate with --config.evaluation.curves=True to have the curves drawn.")
    heads = [head for head in ordered_heads(summary) if not shown or head in shown]
    return causal_figure(curves, heads, ordered_methods(summary))


def placements(
    summary: Mapping[str, Any], start_stages: Mapping[str, int], last_stage: int, published: Mapping[str, float]
) -> list[Placement]:
    """The streams of an evaluation that differ in nothing but where they begin.

    Args:
        summary: contents of `evaluation/summary.json`.
        start_stages: first stage of each such stream.
        last_stage: L.
        published: accuracies in percent by stream, empty where they are of something else.
    """
    found = []
    for head, start in sorted(start_stages.items(), key=lambda pair: pair[1]):
        if head in summary["heads"]:
            entry = summary["heads"][head]
            low, high = entry.get("intervals", {}).get("accuracy", (entry["accuracy"],) * 2)
            accuracy, low, high = (100 * value for value in (entry["accuracy"], low, high))
            label = f"S{start}–S{last_stage}"
            found.append(Placement(label, entry["parameters"], accuracy, low, high, published.get(head)))
    return found


def draw_placements(streams: Sequence[Placement], summary: Mapping[str, Any]) -> Figure:
    """Accuracy over parameters of the stream, with 95 % intervals; GAP, which has none, as a line and its band.

    The stages before the last add so few parameters that points would hide each other: those closer than 2.5 % of the
    largest number are moved apart, to the right; the legend has the exact numbers.
    """
    with style():
        figure = Figure(figsize=(4.4, 2.9), dpi=PIXELS_PER_INCH, layout="constrained")
        ax = figure.subplots()
        largest = max(stream.parameters for stream in streams)
        unit, name = (1e6, "millions") if largest >= 1e6 else (1e3, "thousands")
        if (gap := summary["heads"].get(REFERENCE_HEAD)) is not None:
            low, high = (100 * end for end in gap.get("intervals", {}).get("accuracy", (gap["accuracy"],) * 2))
            ax.axhline(100 * gap["accuracy"], color=GREY, linestyle=(0, (4, 2)), label="GAP (no parameters)")
            ax.axhspan(low, high, color=GREY, alpha=0.12, linewidth=0)
        positions = _apart([stream.parameters / unit for stream in streams], 0.025 * largest / unit)
        for stream, x, color, marker in zip(streams, positions, COLORS, MARKERS, strict=False):
            errors = [[stream.accuracy - stream.low], [stream.high - stream.accuracy]]
            label = f"{stream.label}, {stream.parameters:,}"
            ax.errorbar(
                x,
                stream.accuracy,
                errors,
                color=color,
                marker=marker,
                linestyle="",
                capsize=2,
                markersize=5,
                label=label,
            )
            if stream.paper is not None:
                ax.plot(x, stream.paper, color=color, marker=marker, markersize=5, linestyle="", fillstyle="none")
        if any(stream.paper is not None for stream in streams):
            ax.plot(
                [], [], color=GREY, marker="o", markersize=5, linestyle="", fillstyle="none", label="hollow: published"
            )
        ax.set_xlim(0, 1.12 * largest / unit)
        ax.set_xlabel(f"parameters of the stream ({name})")
        ax.set_ylabel("accuracy (%)")
        ax.set_title("Accuracy by placement of the stream")
        ax.grid(axis="y", linewidth=0.4, alpha=0.5)
        figure.legend(loc="outside right center", title="stages, parameters", alignment="left")
    return figure


def _apart(positions: Sequence[float], gap: float) -> list[float]:
    """The positions, each moved to the right until it is `gap` from the one before."""
    moved = list(positions)
    order = sorted(range(len(moved)), key=moved.__getitem__)
    for before, at in itertools.pairwise(order):
        moved[at] = max(moved[at], moved[before] + gap)
    return moved
