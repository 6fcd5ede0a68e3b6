"""What the type that a trunk computes in changes: logits, attention, and the five metrics of every method and head.

    CASTREAM_SHARED=../shared python benchmarks/trunk_precision.py [--images 200] [--quick]

On the published ResNet-20 with the reference stream and its 200 CIFAR-10 images, kept outside the project. The
metrics are taken as a user would: maps and scores both with the trunk in question. Prints one JSON object.

A CPU has neither TF32 nor the three passes of bfloat16 that a TPU makes instead of it. There, and only there, the
operands of the trunk's products are rounded to what these multiply, the products and sums being float32's own:

- tensorfloat32: to 10 bits after the point, to the nearest number;
- three passes: `x = high + low` with 7 bits each, and `high high + high low + low high`.
"""

from collections.abc import Callable, Iterator
import contextlib
import sys
from typing import Any, get_args
from unittest import mock

import jax
from jax import lax
import numpy as np
from program import finish, new_parser, parse
from reference import ABSENT, load_arrays, make_model
from timing import on_accelerator

import castream_jax as castream
from castream_jax.kernels.precision import Dtype
from castream_jax.metrics import METRICS
from castream_jax.runtime.cpu import prepare_cpu

METHODS = ("gradcam", "gradcam++", "scorecam", "attention")
Product = Callable[..., jax.Array]


def main() -> None:
    prepare_cpu()  # as the command line does
    parser = new_parser(__doc__)
    parser.add_argument("--images", type=int, default=200)
    arguments = parse(parser, images=4)
    if ABSENT:
        sys.exit(f"Nothing can be compared: {ABSENT}.")
    finish(compare(arguments.images))


def tensorfloat32(product: Product, a: jax.Array, b: jax.Array) -> jax.Array:
    return product(_rounded(a, 10), _rounded(b, 10))


def three_passes(product: Product, a: jax.Array, b: jax.Array) -> jax.Array:
    (a_high, a_low), (b_high, b_low) = _parts(a), _parts(b)
    return product(a_high, b_high) + (product(a_high, b_low) + product(a_low, b_high))


def compare(count: int) -> dict[str, Any]:
    golden = load_arrays()
    pixels, labels = golden["images"][:count].astype(np.float32) / 255, golden["labels"][:count]
    models = {dtype: make_model(golden, dtype) for dtype in get_args(Dtype)}
    emulated = {} if on_accelerator() else {"tensorfloat32": tensorfloat32, "three passes": three_passes}
    found = {dtype: measure(model, pixels, labels) for dtype, model in models.items() if dtype not in emulated}
    for name, emulation in emulated.items():
        with emulating(emulation):
            found[name] = measure(models["tensorfloat32"], pixels, labels)
    reference, scores = found["float32"], found["float32"]["scores"]
    return {
        "images": count,
        "emulated": [*emulated],
        "changes": {name: changes(reference, one) for name, one in found.items() if one is not reference},
        "metrics in points": {
            f"{method}, {head}": {
                metric: {
                    name: round(100 * float(one["scores"][head, method][metric].mean()), 2)
                    for name, one in found.items()
                }
                for metric in METRICS
            }
            for head, method in scores
        },
    }


def measure(model: castream.Model, pixels: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    maps = castream.attribute(model, pixels, labels, METHODS)
    return {
        "logits": {head: np.asarray(value) for head, value in model(pixels).items()},
        "attention": [np.asarray(level) for level in model.heads["ca"](model.backbone.stages(pixels))[1]],
        "maps": maps,
        "scores": castream.score(model, pixels, labels, maps),
    }


def changes(expected: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """How far a choice is from float32: logits, predictions, attention and maps."""
    heads = expected["logits"]
    attention = zip(expected["attention"], found["attention"], strict=True)
    return {
        "logits, largest change": {head: _largest(found["logits"][head], heads[head]) for head in heads},
        "predictions that change": {
            head: int((found["logits"][head].argmax(-1) != heads[head].argmax(-1)).sum()) for head in heads
        },
        "attention, largest change over its maximum": max(_largest(b, a) / float(a.max()) for a, b in attention),
        "maps, mean change": {
            f"{method}, {head}": float(np.abs(found["maps"][head, method] - of_method).mean())
            for (head, method), of_method in expected["maps"].items()
        },
    }


@contextlib.contextmanager
def emulating(emulation: Callable[[Product, jax.Array, jax.Array], jax.Array]) -> Iterator[None]:
    """Around what traces a trunk in tensorfloat32: its products are those of `emulation`."""

    def replaced(of_float32: Product) -> Product:
        def product(a: jax.Array, b: jax.Array, *rest: Any, precision: Any = None, **options: Any) -> jax.Array:
            def of_parts(a: jax.Array, b: jax.Array) -> jax.Array:
                return of_float32(a, b, *rest, precision=lax.Precision.HIGHEST, **options)

            return emulation(of_parts, a, b) if precision == lax.Precision.HIGH else of_parts(a, b)

        return product

    jax.clear_caches()
    with (
        mock.patch.object(lax, "conv_general_dilated", replaced(lax.conv_general_dilated)),
        mock.patch.object(lax, "dot_general", replaced(lax.dot_general)),
    ):
        yield
    jax.clear_caches()


def _parts(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    high = _rounded(x, 7)
    return high, _rounded(x - high, 7)


def _rounded(x: jax.Array, bits: int) -> jax.Array:
    return lax.reduce_precision(x, exponent_bits=8, mantissa_bits=bits)


def _largest(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max())


if __name__ == "__main__":
    main()
