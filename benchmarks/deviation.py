"""Largest deviations from the official code's and torchvision's reference arrays: the numbers of docs/results.md.

    CASTREAM_SHARED=../shared python benchmarks/deviation.py [--convolution winograd] [--quick]

On whatever device JAX uses, in float32. Prints one JSON object, then exits with an error if a deviation exceeds its
bar. The reference arrays are kept outside the project: without them nothing is compared, which the result says.
`--convolution` computes as a GPU does that takes this algorithm, on any device (convolution_algorithms.py).
`--quick` takes 20 of the 200 images, and the smallest of torchvision's networks alone.
"""

from collections.abc import Iterable
import contextlib
import json
import sys

from convolution_algorithms import ALGORITHMS, convolving_by
from flax import nnx
import numpy as np
from program import above, finish, new_parser, parse
from reference import ABSENT, SHARED, load_arrays, make_model

import castream_jax as castream
from castream_jax.runtime.cpu import prepare_cpu

METHODS = {"gradcam": "gradcam", "gradcam++": "gradcampp", "scorecam": "scorecam"}  # here: in the reference arrays
CURVES = ("I", "D")
# Metrics per image are means over few pixels' worth of probabilities, curves depend on the order of equal saliencies.
BARS = {"AD": 1e-3, "AG": 1e-3, "AI": 1e-3, "mean I, points": 0.1, "mean D, points": 0.1}
# Of logits, attention logits and maps, on every platform: what a GPU may compute in float32 stays below half of it
# (`--convolution sums`, `winograd`, `fft`), and TF32 exceeds it, in the logits 300 times (`tensorfloat32`).
BAR = 1e-4
IMAGES = 200  # in the reference arrays


def main() -> None:
    prepare_cpu()  # as the command line does
    parser = new_parser(__doc__)
    parser.add_argument("--convolution", metavar="|".join(ALGORITHMS))
    arguments = parse(parser)
    if arguments.convolution not in (None, *ALGORITHMS):
        parser.error(f"--convolution must be one of {', '.join(ALGORITHMS)}")
    if ABSENT:
        finish({"skipped": ABSENT})
        return
    images, networks = (20, 1) if arguments.quick else (IMAGES, None)
    with convolving_by(arguments.convolution) if arguments.convolution else contextlib.nullcontext():
        found = {"official code": official_code(images), "torchvision": torchvision(networks)}
    finish(*judged(found, images))


def judged(found: dict[str, dict[str, float]], images: int = IMAGES) -> tuple[dict[str, object], list[str]]:
    """With the largest deviation over its bar of each side; and what is above its bar."""
    result, missed = dict[str, object](found), []
    for side, values in found.items():
        bars = {name: bar(name, images) for name in values}
        result[f"{side} over bar"] = _max(value / bars[name] for name, value in values.items())
        missed += above(bars, values, of=side)
    return result, missed


def bar(name: str, images: int) -> float:
    # What the order of equal saliencies does to a mean falls with the root of the number of images.
    factor = (IMAGES / images) ** 0.5 if name.startswith("mean") else 1.0
    return BARS.get(name, BAR) * factor


def official_code(images: int) -> dict[str, float]:
    arrays = load_arrays()
    model = make_model(arrays)
    golden = {name: array if name.startswith("stream/") else array[:images] for name, array in arrays.items()}
    pixels, labels = golden["images"].astype(np.float32) / 255, golden["labels"]
    stages = model.backbone.stages(pixels)
    maps = castream.attribute(model, pixels, labels, tuple(METHODS))
    scores = castream.score(model, pixels, labels, maps)
    keys = {key: f"{key[0]}/{METHODS[key[1]]}" for key in maps}

    result = {"logits": _max(_largest(value, golden[f"{head}/logits"]) for head, value in model(pixels).items())}
    stream = model.heads["ca"]
    assert isinstance(stream, castream.CrossAttentionStream)
    attention = stream.attention_logits(stages)
    result["attention logits"] = _max(
        _largest(logits[:, 0], golden[f"attention_logits_{number}"]) for number, logits in enumerate(attention)
    )
    for method in METHODS:
        of_method = [key for key in maps if key[1] == method]
        result[f"{method} maps"] = _max(_largest(maps[key], golden[f"{keys[key]}/map"]) for key in of_method)
    for metric in ("AD", "AG", "AI"):
        result[metric] = _max(_largest(scores[key][metric], golden[f"{name}/{metric}"]) for key, name in keys.items())
    for metric in CURVES:
        means = (scores[key][metric].mean() - golden[f"{name}/{metric}"].mean() for key, name in keys.items())
        result[f"mean {metric}, points"] = _max(100 * abs(float(mean)) for mean in means)
    return result


def torchvision(networks: int | None) -> dict[str, float]:
    sys.path.insert(0, str(SHARED / "golden"))
    from reference_weights import reference_state_dict  # pyright: ignore[reportMissingImports]

    manifests = json.loads((SHARED / "golden" / "torchvision_manifests.json").read_text())
    with np.load(SHARED / "golden" / "torchvision_logits.npz") as arrays:
        golden = dict(arrays)
    result = {}
    for name, manifest in list(manifests.items())[:networks]:
        backbone = castream.create_backbone(name, rngs=nnx.Rngs(0))
        castream.load_torch_state_dict(backbone, reference_state_dict(manifest))
        stages = backbone.stages(golden["pixels"].astype(np.float32) / 255)
        result[f"{name} logits"] = _largest(backbone.classify(stages[-1].mean((1, 2))), golden[f"{name}/logits"])
    return result


def _largest(ours: object, reference: np.ndarray) -> float:
    return float(np.abs(np.asarray(ours) - reference).max())


def _max(values: Iterable[float]) -> float:
    """NaN if one of them is: Python's `max` would pass it over."""
    return float(np.max([*values]))


if __name__ == "__main__":
    main()
