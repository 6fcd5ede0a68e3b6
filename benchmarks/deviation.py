"""Largest deviations from the official code's and torchvision's reference arrays: the numbers of docs/results.md.

    CASTREAM_SHARED=../shared python benchmarks/deviation.py

On whatever device JAX uses, in float32; exits with an error where a deviation exceeds its bar. The reference arrays are
kept outside the project: without them nothing is compared, which the result says. Prints one JSON object.
"""

import argparse
import json
import os
from pathlib import Path
import sys

from flax import nnx
import numpy as np

import castream_jax as castream

METHODS = {"gradcam": "gradcam", "gradcam++": "gradcampp", "scorecam": "scorecam"}  # here: in the reference arrays
CURVES = ("I", "D")
# Metrics per image are means over few pixels' worth of probabilities, curves depend on the order of equal saliencies.
BARS = {"AD": 1e-3, "AG": 1e-3, "AI": 1e-3, "mean I, points": 0.1, "mean D, points": 0.1}
BAR = 1e-4  # of logits, attention logits and maps: float32 sums in another order
TORCHVISION_BAR = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="of torchvision the smallest network alone")
    arguments = parser.parse_args()
    shared = Path(os.environ.get("CASTREAM_SHARED", "../shared"))
    if not shared.is_dir():
        print(json.dumps({"skipped": f"there are no reference arrays in {shared}: set CASTREAM_SHARED"}))
        return
    found = {
        "official code": official_code(shared),
        "torchvision": torchvision(shared, 1 if arguments.quick else None),
    }
    over = {
        "official code over bar": max(value / BARS.get(name, BAR) for name, value in found["official code"].items()),
        "torchvision over bar": max(found["torchvision"].values()) / TORCHVISION_BAR,
    }
    print(json.dumps({**found, **over}, indent=2))
    if not max(over.values()) <= 1:  # NaN, too
        sys.exit("Not equal within the bars.")


def official_code(shared: Path) -> dict[str, float]:
    with np.load(shared / "golden" / "castream_cifar10_resnet20.npz") as arrays:
        golden = dict(arrays)
    backbone = castream.load_backbone("cifar_resnet20", shared / "weights" / "resnet20-12fca82f.th")
    stream = castream.CrossAttentionStream(backbone.stage_dims, rngs=nnx.Rngs(0))
    weights = {name.removeprefix("stream/"): golden[name] for name in golden if name.startswith("stream/")}
    castream.load_torch_stream(stream, weights)
    model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling(), "ca": stream})
    pixels, labels = golden["images"].astype(np.float32) / 255, golden["labels"]
    stages = backbone.stages(pixels)
    maps = castream.attribute(model, pixels, labels, tuple(METHODS))
    scores = castream.score(model, pixels, labels, maps)
    keys = {key: f"{key[0]}/{METHODS[key[1]]}" for key in maps}

    result = {"logits": max(_largest(value, golden[f"{head}/logits"]) for head, value in model(pixels).items())}
    attention = stream.attention_logits(stages)
    result["attention logits"] = max(
        _largest(logits[:, 0], golden[f"attention_logits_{number}"]) for number, logits in enumerate(attention)
    )
    for method in METHODS:
        of_method = [key for key in maps if key[1] == method]
        result[f"{method} maps"] = max(_largest(maps[key], golden[f"{keys[key]}/map"]) for key in of_method)
    for metric in ("AD", "AG", "AI"):
        result[metric] = max(_largest(scores[key][metric], golden[f"{name}/{metric}"]) for key, name in keys.items())
    for metric in CURVES:
        means = (scores[key][metric].mean() - golden[f"{name}/{metric}"].mean() for key, name in keys.items())
        result[f"mean {metric}, points"] = max(100 * abs(float(mean)) for mean in means)
    return result


def torchvision(shared: Path, networks: int | None) -> dict[str, float]:
    sys.path.insert(0, str(shared / "golden"))
    from reference_weights import reference_state_dict  # pyright: ignore[reportMissingImports]

    manifests = json.loads((shared / "golden" / "torchvision_manifests.json").read_text())
    with np.load(shared / "golden" / "torchvision_logits.npz") as arrays:
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


if __name__ == "__main__":
    main()
