"""Whole evaluation against PyTorch: maps by three methods under two heads, each map scored by five metrics.

    python benchmarks/evaluation.py                              # ResNet-50, one image of 224 x 224: minutes
    python benchmarks/evaluation.py --backbone cifar_resnet20    # 500 images of 32 x 32: minutes
    python benchmarks/evaluation.py --quick

Four sides get the same images, weights and machine: this library (one trunk pass for both heads), the official
procedure as written (`pytorch_official.py`), the best that plain PyTorch does (`pytorch_best.py`), at its fastest batch
size, and the usual tools, pytorch-grad-cam and RISE (`pytorch_usual.py`), where it is installed. Group of images by
group of images they are timed in turn, and the median counts. Compiling is not timed. The numbers of the first three
must be equal, or this exits with an error at the end. The machine should be idle, or the ratios flatter JAX.

The floor is what no evaluation can do without: the distinct images that must pass forward ÷ images per second of
nothing but forward passes, a chunk of images at a time (`floor.py`).

On an accelerator, it is 8 images, the trunk is bfloat16 here and in PyTorch at its best, and deviations, then those of
bfloat16, have no bars.

Images are the bundled digits on canvases unless `--data` names a class-per-folder tree; weights are random unless files
are given. Prints Markdown; `--json FILE` writes all that was measured.
"""

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
import importlib.metadata
import importlib.util
import multiprocessing
import os
from pathlib import Path
import platform
import statistics
import sys
import time
from typing import Any

from evaluation_report import Results, bars, concatenated, deviation, markdown
from flax import nnx
from floor import count_masks, count_scored, forward_pass, images_per_second, time_parts
import jax
import jax.numpy as jnp
from machine import Clock
import numpy as np
from program import above, as_json, exit_if, new_parser, parse
from reference import load_stream
from timing import default_dtype, on_accelerator

import castream_jax as castream
from castream_jax.attribution import METHODS
from castream_jax.attribution.chunk_size import chunk_for
from castream_jax.backbones import torch_state_dict
from castream_jax.data import CanvasDigits, ImageFolder, Squash
from castream_jax.evaluation.on_device import explain_batch
from castream_jax.protocol import get_protocol
from castream_jax.runtime.cpu import prepare_cpu

try:
    import pytorch_sides
except ModuleNotFoundError:  # PyTorch is for comparison, where it is installed
    pytorch_sides = None

PROTOCOL = get_protocol("castream")
OFFICIAL_BATCH = 16

Side = Callable[[np.ndarray, np.ndarray], Results]  # of uint8 pixels and labels


def main() -> None:
    prepare_cpu()  # as the command line does; PyTorch gains by it too
    arguments = parse_arguments()
    model = make_model(arguments)
    methods = tuple(arguments.methods.split(","))
    pixels, labels = read_images(arguments)
    group, chunk = arguments.group, arguments.chunk or chunk_for(model, *pixels.shape[1:3])
    at_least = 0.1 if arguments.quick else 2.0  # seconds that a forward pass or a part is timed for

    # --- nothing but forward passes, of so many images at a time ---
    forward = forward_pass(model, resized(pixels, chunk))
    rates = {
        "ours": {n: images_per_second(forward_pass(model, resized(pixels, n)), n, at_least) for n in arguments.batches}
    }
    pytorch, best_batch = {}, None
    if pytorch_sides is not None:
        alone = pytorch_sides.forward_pass
        rates["PyTorch"] = {
            n: images_per_second(alone(model, resized(pixels, n)), n, at_least) for n in arguments.batches
        }
        best_batch = max(rates["PyTorch"], key=rates["PyTorch"].__getitem__)
        as_it_is = make_side if on_accelerator() else SideAsItIs
        pytorch["official"] = as_it_is("official", arguments)
        pytorch["best"] = pytorch_sides.best(model, methods, best_batch, pixels[: min(group, arguments.pytorch_images)])
        if importlib.util.find_spec("pytorch_grad_cam"):
            pytorch["usual"] = as_it_is("usual", arguments)
    ours, compile_seconds = our_side(model, pixels[:group], labels[:group], methods, chunk)
    sides: dict[str, Side] = {"ours": ours, **pytorch}

    # --- every group of images through all sides, in turn ---
    timings: dict[str, list[tuple[int, float]]] = {name: [] for name in sides}
    results: dict[str, list[Results]] = {name: [] for name in sides}
    chunk_rates = [images_per_second(forward, chunk, at_least)]
    clock = Clock()
    for begin in range(0, len(pixels), group):
        for name, side in sides.items():
            end = begin + group if name == "ours" else min(begin + group, arguments.pytorch_images)
            if begin >= end:
                continue
            start = time.perf_counter()
            results[name].append(side(pixels[begin:end], labels[begin:end]))
            timings[name].append((end - begin, time.perf_counter() - start))
            print(f"{name}: images {begin} … {end - 1} in {timings[name][-1][1]:.1f} s", file=sys.stderr)
        chunk_rates.append(images_per_second(forward, chunk, at_least))
    others = clock.others()

    images = {name: sum(count for count, _ in of_groups) for name, of_groups in timings.items()}
    per_image = {name: statistics.median(s / n for n, s in of_groups) for name, of_groups in timings.items()}
    all_results = {name: concatenated(of_groups) for name, of_groups in results.items()}
    deviations = {name: deviation(all_results["ours"], all_results[name]) for name in pytorch if name != "usual"}
    passes = {name: side.images_seen / images[name] for name, side in pytorch.items()}
    passes["ours"] = count_distinct(model, pixels, methods, group) / len(pixels)
    parts = time_parts(
        model, pixels[: arguments.part_images], labels[: arguments.part_images], methods, PROTOCOL, chunk, at_least
    )
    rate = statistics.median(chunk_rates)
    report = {
        "backbone": arguments.backbone,
        "size": pixels.shape[1],
        "dtype": arguments.dtype,
        "methods": methods,
        "images": images,
        "group": group,
        "chunk": chunk,
        "pytorch_batch": {"official": OFFICIAL_BATCH, "best": best_batch},
        "seconds_per_image": per_image,
        "forward_passes_per_image": passes,
        "speed_up": {name: per_image[name] / per_image["ours"] for name in pytorch},
        "deviations": deviations,
        "hours_for_50000_images": per_image["ours"] * 50_000 / 3600,
        "forward_images_per_second": rates,
        "timings": timings,
        "share_of_other_programs": others,
        "chunk_images_per_second": rate,
        "scorecam_share": next((n / rate / s for part, n, s in parts if part.endswith("scorecam")), None),
        "share_of_floor": passes["ours"] / rate / per_image["ours"],
        "parts": [(part, *(value / arguments.part_images for value in values)) for part, *values in parts],
        "compile_seconds": compile_seconds,
        "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, {platform.machine()}",
        "jax": jax.__version__,
        "torch": None if pytorch_sides is None else importlib.metadata.version("torch"),
    }
    missed = []
    if arguments.dtype != "bfloat16":
        missed = [each for name, row in deviations.items() for each in above(bars(name, images[name]), row, of=name)]
    print(markdown(report))
    if arguments.json:
        Path(arguments.json).write_text(as_json(report, missed) + "\n")
    exit_if(missed)


class SideAsItIs:
    """A side of PyTorch's in a process of its own, where memory is the system's to give and take."""

    images_seen = 0

    def __init__(self, name: str, arguments: argparse.Namespace):
        self.process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), start_side, (name, arguments))
        self.process.submit(int).result()  # when it has started

    def __call__(self, pixels: np.ndarray, labels: np.ndarray) -> Results:
        results, self.images_seen = self.process.submit(call_side, pixels, labels).result()
        return results


_side: Any = None  # of this process


def start_side(name: str, arguments: argparse.Namespace) -> None:
    global _side
    _side = make_side(name, arguments)


def call_side(pixels: np.ndarray, labels: np.ndarray) -> tuple[Results, int]:
    return _side(pixels, labels), _side.images_seen


def make_side(name: str, arguments: argparse.Namespace) -> Any:
    """The official procedure or the usual tools."""
    assert pytorch_sides is not None
    return getattr(pytorch_sides, name)(make_model(arguments), arguments.methods.split(","), OFFICIAL_BATCH)


def count_distinct(model: castream.Model, pixels: np.ndarray, methods: tuple[str, ...], group: int) -> int:
    """Distinct images that evaluating `pixels`, `group` of them in a call, must pass forward."""
    scored = count_scored(group, pixels.shape[1], len(methods) * len(model.heads), PROTOCOL)
    masks = count_masks(model, pixels, group) if "scorecam" in methods else 0
    return len(pixels) + len(pixels) // group * scored + masks


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--backbone", default="resnet50", help="a ResNet of torchvision's or a CIFAR ResNet")
    parser.add_argument("--weights", help="its weights, a PyTorch or safetensors file")
    parser.add_argument("--stream", help="the stream's weights under official names, an .npz file")
    parser.add_argument("--data", help="class-per-folder tree of images")
    parser.add_argument("--methods", default="gradcam,gradcam++,scorecam")
    parser.add_argument("--images", type=int, help="default 1, on an accelerator 8; of a CIFAR ResNet 500")
    parser.add_argument("--size", type=int, help="image side in pixels; default 224; of a CIFAR ResNet 32")
    parser.add_argument("--group", type=int, help="images per call; default all; of a CIFAR ResNet 100")
    parser.add_argument("--chunk", type=int, help="masked images per trunk pass, at most; default: what fits")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default=default_dtype(), help="of the trunk")
    parser.add_argument("--pytorch-images", type=int, help="fewer images for PyTorch; seconds per image are compared")
    parser.add_argument("--part-images", type=int, help="images whose parts are timed; default 1, or one group")
    parser.add_argument("--json", help="file to write")
    arguments = parse(parser, backbone="cifar_resnet8", images=8, group=4)
    cifar = arguments.backbone.startswith("cifar")
    arguments.images = arguments.images or (500 if cifar else 8 if on_accelerator() else 1)
    arguments.size = arguments.size or (32 if cifar else 224)
    arguments.group = arguments.group or (100 if cifar else arguments.images)
    arguments.pytorch_images = arguments.pytorch_images or arguments.images
    arguments.part_images = arguments.part_images or (arguments.group if cifar else 1)
    arguments.batches = (16,) if arguments.quick else (32, 64, 128, 256) if cifar else (8, 16, 32, 64)
    if arguments.images % arguments.group:
        parser.error(f"{arguments.images} images do not split into groups of {arguments.group}.")
    unknown = [method for method in arguments.methods.split(",") if method not in METHODS]
    if unknown:
        parser.error(f"There is no attribution method {', '.join(unknown)}.")
    return arguments


def make_model(arguments: argparse.Namespace) -> castream.Model:
    """Backbone under GAP and under a stream; the same weights in every run."""
    if arguments.weights:
        backbone = castream.load_backbone(arguments.backbone, arguments.weights)
    else:
        backbone = castream.create_backbone(arguments.backbone, rngs=nnx.Rngs(0))
        # Residual branches as weak as in a trained network, or the features of 16 random blocks grow without bound.
        tame = {k: v * 0.25 if k.endswith("bn3.weight") else v for k, v in torch_state_dict(backbone).items()}
        castream.load_torch_state_dict(backbone, tame)
    backbone.dtype = arguments.dtype
    stream = castream.CrossAttentionStream(backbone.stage_dims, rngs=nnx.Rngs(1))
    if arguments.stream:
        with np.load(arguments.stream) as arrays:
            load_stream(stream, dict(arrays))
    return castream.Model(backbone, {"gap": castream.GlobalAveragePooling(), "ca": stream})


def read_images(arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 `[N, size, size, 3]` and labels, evenly spaced over the data."""
    source = ImageFolder(arguments.data) if arguments.data else CanvasDigits("train", 1, arguments.size)
    squash = Squash(arguments.size)
    chosen = np.arange(arguments.images) * len(source) // arguments.images
    records = [squash.map(source[int(index)]) for index in chosen]
    return np.stack([r["pixels"] for r in records]), np.array([r["label"] for r in records], np.int32)


def resized(pixels: np.ndarray, count: int) -> np.ndarray:
    """`count` images, some of them more than once if there are fewer."""
    return np.resize(pixels, (count, *pixels.shape[1:]))


def our_side(
    model: castream.Model, pixels: np.ndarray, labels: np.ndarray, methods: tuple[str, ...], chunk: int
) -> tuple[Side, float]:
    """What `castream evaluate` calls, compiled for groups of this shape; and the seconds that compiling took."""
    state = nnx.state(model)
    begin = time.perf_counter()
    arrays = jnp.asarray(pixels), jnp.asarray(labels)
    compiled = explain_batch.lower(model, *arrays, methods=methods, protocols=(PROTOCOL,), chunk=chunk).compile()
    seconds = time.perf_counter() - begin

    def side(pixels: np.ndarray, labels: np.ndarray) -> Results:
        _, (maps,), (scores,) = jax.device_get(compiled(state, pixels, labels))
        return {key: {"map": maps[key], **scores[key]} for key in maps}

    return side, seconds


if __name__ == "__main__":
    main()
