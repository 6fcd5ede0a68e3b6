"""What a bfloat16 trunk changes: logits, attention, and the five metrics of every method and head.

    CASTREAM_SHARED=../shared python benchmarks/bfloat16.py [--images 200] [--quick]

On the published ResNet-20 with the reference stream and its 200 CIFAR-10 images, kept outside the project. The
metrics are taken as a user would: maps and scores both with the trunk in question. Prints one JSON object.
"""

import sys
from typing import Any

import numpy as np
from program import finish, new_parser, parse
from reference import ABSENT, load_arrays, make_model

import castream_jax as castream
from castream_jax.metrics import METRICS
from castream_jax.runtime.cpu import prepare_cpu

METHODS = ("gradcam", "gradcam++", "scorecam", "attention")


def main() -> None:
    prepare_cpu()  # as the command line does
    parser = new_parser(__doc__)
    parser.add_argument("--images", type=int, default=200)
    arguments = parse(parser, images=4)
    if ABSENT:
        sys.exit(f"Nothing can be compared: {ABSENT}.")
    finish(compare(arguments.images))


def compare(count: int) -> dict[str, Any]:
    golden = load_arrays()
    pixels, labels = golden["images"][:count].astype(np.float32) / 255, golden["labels"][:count]
    reference, half = (make_model(golden, dtype) for dtype in ("float32", "bfloat16"))
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


if __name__ == "__main__":
    main()
