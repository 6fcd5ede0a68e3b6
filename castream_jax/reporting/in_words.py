"""What an evaluation found, in sentences: every verdict is an interval that excludes 0, or does not."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from castream_jax.drawing.titles import REFERENCE_HEAD, head_title, method_title
from castream_jax.reporting.metric_table import (
    BASELINE_METHODS,
    METRICS,
    ordered_heads,
    ordered_methods,
    percent_of,
    reference_differences,
)

# Above this rank correlation with the maps of a random model, a map is said not to depend on what was learnt.
UNCHANGED = 0.5

_BASELINE_WORDS = {"random": "random maps", "centre": "a blob in the centre"}


def in_words(summary: Mapping[str, Any]) -> list[str]:
    """Sentences for the top of the report: accuracy, heads, methods, baselines, sanity check; fewer, if less is known.

    Args:
        summary: contents of `evaluation/summary.json`.
    """
    return [*_accuracies(summary), *_heads(summary), *_methods(summary), *_baselines(summary), *_unchanged(summary)]


def _accuracies(summary: Mapping[str, Any]) -> Iterator[str]:
    for head in ordered_heads(summary):
        difference = summary["heads"][head].get("difference", {})
        low, high = difference.get("intervals", {}).get("accuracy", (0.0, 0.0))
        if low == high == 0:
            continue
        verb = "keeps" if low <= 0 <= high else "raises" if low > 0 else "lowers"
        points = f"{percent_of(difference['accuracy']):+.1f} ± {50 * (high - low):.1f} points".replace("-", "−")
        of_gap = percent_of(summary["heads"][REFERENCE_HEAD]["accuracy"])
        yield f"The stream {head_title(head)} {verb} accuracy ({points}; GAP has {of_gap:.1f} %)."


def _heads(summary: Mapping[str, Any]) -> Iterator[str]:
    for entry in summary.get("differences", ()):
        if entry["method"] not in BASELINE_METHODS and (verdict := _verdict(entry)):
            yield f"By {method_title(entry['method'])}, {head_title(entry['head'])} compared with GAP: {verdict}."


def _methods(summary: Mapping[str, Any]) -> Iterator[str]:
    for entry in reference_differences(summary):
        if entry["method"] not in BASELINE_METHODS and (verdict := _verdict(entry)):
            yield f"{_map(entry)} compared with {method_title(entry['reference'])}: {verdict}."


def _baselines(summary: Mapping[str, Any]) -> Iterator[str]:
    found = {
        (entry["head"], entry["method"], entry["reference"]): entry for entry in summary.get("method_differences", ())
    }
    for method in ordered_methods(summary):
        for head in ordered_heads(summary) if method not in BASELINE_METHODS else ():
            verdicts = []
            for baseline, words in _BASELINE_WORDS.items():
                entry = found.get((head, method, baseline))
                if entry is None:
                    continue
                better, worse, _ = _sides(entry)
                verdicts.append(f"beats {words} by {_listed(better)}" if better else f"beats {words} by no metric")
                if worse:
                    verdicts[-1] += f" and loses to {'them' if baseline == 'random' else 'it'} by {_listed(worse)}"
                # Masking and curves agree that it is no better than chance.
                if baseline == "random" and len(worse) > len(better):
                    verdicts[-1] += ": do not use it alone"
            if verdicts:
                yield f"{_map({'head': head, 'method': method})} {'; it '.join(verdicts)}."


def _unchanged(summary: Mapping[str, Any]) -> Iterator[str]:
    rows = summary.get("sanity") or ()
    last = {(row["head"], row["method"]): row for row in rows if row["randomised"] != "nothing"}  # all of it random
    maps = [_map(row) for row in last.values() if (row["rank_correlation"] or 0) > UNCHANGED]
    if maps:
        yield (
            f"With stream and classifier random, {_listed(maps)} "
            f"{'stays' if len(maps) == 1 else 'stay'} much the same: no explanation of what was learnt there."
        )


def _verdict(entry: Mapping[str, Any]) -> str:
    better, worse, undecided = _sides(entry)
    if not (better or worse):
        return "no difference is established" if undecided else ""
    parts = ((better, "better by"), (worse, "worse by"), (undecided, "undecided by"))
    return "; ".join(f"{words} {_listed(names)}" for names, words in parts if names)


def _sides(entry: Mapping[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """The metrics by which the difference is for the better, for the worse, and of which the interval includes 0."""
    better, worse, undecided = [], [], []
    for metric in METRICS:
        if metric.key not in entry.get("intervals", {}):
            continue
        low, high = entry["intervals"][metric.key]
        side = undecided if low <= 0 <= high else better if (high < 0) == metric.lower_is_better else worse
        side.append(metric.title)
    return better, worse, undecided


def _map(entry: Mapping[str, Any]) -> str:
    return f"{method_title(entry['method'])} under {head_title(entry['head'])}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
