"""What a bfloat16 trunk changes: logits, attention, and the five metrics of every method and head.

    CASTREAM_SHARED=../shared python benchmarks/bfloat16.py [--images 200]

On the published ResNet-20 with the reference stream and its 200 CIFAR-10 images, kept outside the project. The
metrics are taken as a user would: maps and scores both with the trunk in question. Prints one JSON object.
"""

import argparse
import json
import os
from pathlib import Path
import sys
from typing import Any

from flax import nnx
import numpy as np

import castream_jax as castream
from castream_jax.backbones.backbone import Dtype
from castream_jax.metrics import METRICS

METHODS = ("gradcam", "gradcam++", "scorecam", "attention")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="few images")
    arguments = parser.parse_args()
    shared = Path(os.environ.get("CASTREAM_SHARED", "../shared"))
    if not shared.is_dir():
        sys.exit(f"There are no reference arrays in {shared}: set CASTREAM_SHARED.")
    print(json.dumps(compare(shared, 4 if arguments.quick else arguments.images), indent=2))


def compare(shared: Path, count: int) -> dict[str, Any]:
    with np.load(shared / "golden" / "castream_cifar10_resnet20.npz") as arrays:
        golden = dict(arrays)
    pixels, labels = golden["images"][:count].astype(np.float32) / 255, golden["labels"][:count]
    reference, half = (open_model(shared, golden, dtype) for dtype in ("float32", "bfloat16"))
    expected, logits = reference(pixels), half(pixels)
    stages = [model.backbone.stages(pixels) for model in (reference, half)]
    attention = [model.heads["ca"](s)[1] for model, s in zip((reference, half), stages, strict=True)]
    scores = [
        castream.score(model, pixels, labels, castream.attribute(model, pixels, labels, METHODS))
        for model in (reference, half)
    ]
    return {
        "images": count,
        "logits, largest change": {
            head: float(np.abs(np.asarray(logits[head]) - expected[head]).max()) for head in expected
        },
        "predictions that change": {
            head: int((logits[head].argmax(-1) != expected[head].argmax(-1)).sum()) for head in expected
        },
        "attention, largest change over its maximum": [
            float(np.abs(np.asarray(b) - a).max() / a.max()) for a, b in zip(*attention, strict=True)
        ],
        "metrics in points, float32 -> bfloat16": {
            f"{method}, {head}": {
                metric: [round(100 * float(score[head, method][metric].mean()), 2) for score in scores]
                for metric in METRICS
            }
            for head, method in scores[0]
        },
    }


def open_model(shared: Path, golden: dict[str, np.ndarray], dtype: Dtype) -> castream.Model:
    backbone = castream.load_backbone("cifar_resnet20", shared / "weights" / "resnet20-12fca82f.th", dtype=dtype)
    stream = castream.CrossAttentionStream(backbone.stage_dims, rngs=nnx.Rngs(0))
    weights = {name.removeprefix("stream/"): golden[name] for name in golden if name.startswith("stream/")}
    castream.load_torch_stream(stream, weights)
    return castream.Model(backbone, {"gap": castream.GlobalAveragePooling(), "ca": stream})


if __name__ == "__main__":
    main()
