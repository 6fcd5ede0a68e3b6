"""`evaluation.py`'s measurements as tables, and the deviations between its sides."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Results = Mapping[tuple[str, str], Mapping[str, np.ndarray]]  # {(head, method): {"map", "AD", …: [B, …]}}

# Largest deviation of a map and of an image's AD, AG or AI; and of the means of I and D in points.
BARS = {"map": 1e-4, "AD": 1e-3, "AG": 1e-3, "AI": 1e-3, "I": 0.1, "D": 0.1}

MOST_OTHERS = 0.03  # of all cores' time, for ratios that mean something


def bars(side: str, images: int) -> dict[str, float]:
    """`BARS` for a side.

    I and D depend on the order of equal saliencies, which the official procedure leaves to an unstable sort. What comes
    of that is zero in the mean and falls with the root of the number of images: the bars hold for 200 or more.
    """
    factor = max(1.0, (200 / images) ** 0.5) if side == "official" else 1.0
    return {metric: bar * factor if metric in ("I", "D") else bar for metric, bar in BARS.items()}


def deviation(ours: Results, theirs: Results) -> dict[str, float]:
    """Largest deviation of each metric, in the units of `BARS`, on the images that both have.

    AG divides by `1 - p` and AI asks whether `o > p`: where `p` is 1, or `o` is `p`, rounding decides. Such images do
    not count; `"undecided"` is the largest share of them. NaN stays NaN.
    """
    result = dict.fromkeys((*BARS, "undecided"), 0.0)
    for key, expected in theirs.items():
        found = {name: values[: len(expected["map"])].astype(np.float64) for name, values in ours[key].items()}
        decided = {"AG": 1 - found["p"] > 1e-4, "AI": np.abs(found["p"] - found["o"]) > 1e-6}
        result["undecided"] = max(result["undecided"], *(float(1 - rows.mean()) for rows in decided.values()))
        for metric in BARS:
            differences = found[metric] - expected[metric]
            if metric in ("I", "D"):
                largest = 100 * abs(differences.mean())
            else:
                largest = np.abs(differences[decided.get(metric, slice(None))]).max(initial=0)
            result[metric] = float(np.maximum(result[metric], largest))
    return result


def concatenated(groups: Sequence[Results]) -> Results:
    """One after the other along images."""
    return {
        key: {name: np.concatenate([group[key][name] for group in groups]) for name in values}
        for key, values in groups[0].items()
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The report as tables."""
    images, seconds, passes = (report[key] for key in ("images", "seconds_per_image", "forward_passes_per_image"))
    rates = report["forward_images_per_second"]
    batch = report["pytorch_batch"]
    titles = {
        "ours": f"castream_jax, chunks of {report['chunk']}",
        "official": f"PyTorch, official procedure, batches of {batch['official']}",
        "best": f"PyTorch, at its best, batches of {batch['best']}",
        "usual": f"pytorch-grad-cam and RISE, batches of {batch['official']}",
    }
    sides = [
        [title, images[name], f"{seconds[name]:.3g}", f"{passes[name]:,.1f}", _times(report["speed_up"].get(name))]
        for name, title in titles.items()
        if name in seconds
    ]
    deviations = []
    for name, row in report["deviations"].items():
        deviations.append([titles[name], *(f"{row[key]:.1e}" for key in row)])
        deviations.append(["bar", *(f"{bar:.2g}" for bar in bars(name, images[name]).values()), ""])
    rate = report["chunk_images_per_second"]
    parts = [
        [part, f"{count:,.1f}", f"{time:.3g}", f"{count / rate / time:.0%}"]
        for part, count, time in [*report["parts"], ("**all**", passes["ours"], seconds["ours"])]
    ]
    counts = list(rates["ours"])
    alone = [[side, *(f"{row[n]:,.4g}" if n in row else "" for n in counts)] for side, row in rates.items()]
    blocks = [
        f"{report['backbone']}, {images['ours']} images of {report['size']} × {report['size']}, "
        f"{report['group']} a call; {', '.join(report['methods'])}; {report['device']}.",
        _table(["side", "images", "s per image", "forward passes per image", "ours is faster"], sides),
        _table(["largest deviation from", *BARS, "undecided"], deviations),
        _table(["part, alone", "forward passes per image", "s per image", "of the floor"], parts),
        _table(["images/s of forward passes alone, at a time", *counts], alone),
        f"The floor: forward passes alone of {report['chunk']} images at a time, {rate:,.4g} images/s. "
        f"Compiled in {report['compile_seconds']:.1f} s.",
    ]
    others = report["share_of_other_programs"]
    if others is None or others > MOST_OTHERS:
        share = "an unknown share" if others is None else f"{others:.0%}"
        blocks.append(
            f"Other programs took {share} of the cores meanwhile, which slows PyTorch more than JAX: do not cite."
        )
    return "\n\n".join(blocks)


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f} ×"


def _table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---", *(["---:"] * (len(header) - 1))], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
