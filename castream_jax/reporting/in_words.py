"""What an evaluation found, in sentences: every verdict is an interval that excludes 0, or does not."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from castream_jax.drawing.titles import REFERENCE_HEAD, head_title, method_title
from castream_jax.reporting.metric_table import (
    BASELINE_METHODS,
    METRICS,
    ordered_heads,
    percent_of,
    reference_differences,
)

# Above this rank correlation with the maps of a random model, a map is said not to depend on what was learnt.
UNCHANGED = 0.5
# An accuracy is said to be kept where the interval of its difference includes 0 and nothing beyond these 2 points.
KEPT = 0.02


class Words(NamedTuple):
    """Sentences: `findings` for the top of the report, and each map beside the `baselines`."""

    findings: list[str]
    baselines: list[str]


def in_words(summary: Mapping[str, Any]) -> Words:
    """Accuracy, heads, methods, what not to use, sanity check; fewer sentences, where less is known.

    Args:
        summary: contents of `evaluation/summary.json`.
    """
    compared = (*_accuracies(summary), *_heads(summary), *_methods(summary))
    return Words([*compared, *_warnings(summary), *_unchanged(summary)], list(_baselines(summary)))


def _accuracies(summary: Mapping[str, Any]) -> Iterator[str]:
    for head in ordered_heads(summary):
        difference = summary["heads"][head].get("difference", {})
        low, high = difference.get("intervals", {}).get("accuracy", (0.0, 0.0))
        if low == high == 0:
            continue
        mean, of_gap = percent_of(difference["accuracy"]), percent_of(summary["heads"][REFERENCE_HEAD]["accuracy"])
        points = f"({mean:+z.1f} ± {50 * (high - low):.1f} points; GAP has {of_gap:.1f} %)".replace("-", "−")
        if max(-low, high) > KEPT and low <= 0 <= high:
            yield f"Whether the stream {head_title(head)} keeps accuracy is undecided {points}."
            continue
        verb = "keeps" if low <= 0 <= high else "raises" if low > 0 else "lowers"
        yield f"The stream {head_title(head)} {verb} accuracy {points}."


def _heads(summary: Mapping[str, Any]) -> Iterator[str]:
    for entry in summary.get("differences", ()):
        if entry["method"] not in BASELINE_METHODS and (verdict := _verdict(entry)):
            yield f"By {method_title(entry['method'])}, {head_title(entry['head'])} compared with GAP: {verdict}."


def _methods(summary: Mapping[str, Any]) -> Iterator[str]:
    for entry in reference_differences(summary):
        if entry["method"] not in BASELINE_METHODS and (verdict := _verdict(entry)):
            yield f"{_map(entry)} compared with {method_title(entry['reference'])}: {verdict}."


def _warnings(summary: Mapping[str, Any]) -> Iterator[str]:
    worse_than_chance = []
    for entry in _to_baseline(summary, "random"):
        better, worse, _ = _sides(entry)
        if len(worse) > len(better):
            worse_than_chance.append(_map(entry))
    if worse_than_chance:
        alone = "do not use it alone" if len(worse_than_chance) == 1 else "do not use them alone"
        yield f"Worse than random maps by more metrics than better: {_listed(worse_than_chance)}; {alone}."


def _baselines(summary: Mapping[str, Any]) -> Iterator[str]:
    to_centre = {_map(entry): entry for entry in _to_baseline(summary, "centre")}
    for entry in _to_baseline(summary, "random"):
        sides = [f"{_map(entry)} {_beats(entry, 'random maps', 'them')}"]
        if _map(entry) in to_centre:
            sides.append(f"it {_beats(to_centre[_map(entry)], 'a blob in the centre', 'it')}")
        yield f"{'; '.join(sides)}."


def _to_baseline(summary: Mapping[str, Any], baseline: str) -> list[Mapping[str, Any]]:
    entries = summary.get("method_differences", ())
    return [e for e in entries if e["reference"] == baseline and e["method"] not in BASELINE_METHODS]


def _beats(entry: Mapping[str, Any], baseline: str, pronoun: str) -> str:
    better, worse, _ = _sides(entry)
    loses = f" and loses to {pronoun} by {_listed(worse)}" if worse else ""
    return f"beats {baseline} by {_listed(better) if better else 'no metric'}{loses}"


def _unchanged(summary: Mapping[str, Any]) -> Iterator[str]:
    rows = summary.get("sanity") or ()
    last = {(row["head"], row["method"]): row for row in rows if row["randomised"] != "nothing"}  # all of it random
    maps = [_map(row) for row in last.values() if (row["rank_correlation"] or 0) > UNCHANGED]
    if maps:
        yield (
            f"With stream and classifier random, {_listed(maps)} "
            f"{'stays' if len(maps) == 1 else 'stay'} much the same: such maps do not show what these have learnt."
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
