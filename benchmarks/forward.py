"""Forward pass of the trunks against PyTorch's (evaluation mode, no gradients, channels-last), and their compile time.

    python benchmarks/forward.py [--backbones resnet50,convnext_tiny] [--batch 16] [--size 224] [--quick]

The two are warmed up and timed in turn, A B A B …, so that a drift of the machine hits both; the ratio of the medians,
above 1 where JAX is faster, is what matters. PyTorch is timed in float32, which the ratio is to, and under bfloat16
autocast. Weights are random, the same on both sides only in shape. Prints one JSON object; without torchvision there
are no ratios.
"""

# PyTorch is for comparison, where it is installed.
# pyright: reportMissingImports=false, reportOptionalMemberAccess=false

import argparse
from collections.abc import Callable
import json
import os
import platform
import statistics
import time

from flax import nnx
import jax
import numpy as np

import castream_jax as castream
from castream_jax.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD
from castream_jax.cpu import keep_freed_memory

try:
    from pytorch_models import torch, torchvision
except ModuleNotFoundError:
    torch = torchvision = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", default="resnet50,convnext_tiny,efficientnet_b0")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224, help="image side in pixels")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="a small run that only shows that it works")
    arguments = parser.parse_args()
    keep_freed_memory()  # as the command line does
    if arguments.quick:
        arguments.backbones, arguments.batch, arguments.size, arguments.rounds = "resnet18", 2, 64, 3
    pixels = np.random.default_rng(0).random((arguments.batch, arguments.size, arguments.size, 3), np.float32)
    print(
        json.dumps(
            {
                "backbones": {name: measure(name, pixels, arguments.rounds) for name in arguments.backbones.split(",")},
                "batch": arguments.batch,
                "size": arguments.size,
                "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, {platform.machine()}",
                "jax": jax.__version__,
                "torch": None if torch is None else torch.__version__,
            }
        )
    )


def measure(name: str, pixels: np.ndarray, rounds: int) -> dict[str, float]:
    """Compile seconds, images per second, and the ratio of the latter to PyTorch's."""
    compiled, seconds = jax_forward(name, pixels)
    sides: dict[str, Callable[[], object]] = {"jax": compiled}
    if torchvision is not None and not name.startswith("cifar"):
        sides["torch"] = torch_forward(name, pixels, autocast=False)
        sides["torch_bfloat16"] = torch_forward(name, pixels, autocast=True)
    for function in sides.values():
        function()
        function()
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, function in sides.items():
            begin = time.perf_counter()
            function()
            times[side].append(time.perf_counter() - begin)
    median = {side: statistics.median(values) for side, values in times.items()}
    result = {f"{side}_images_per_second": round(len(pixels) / value, 1) for side, value in median.items()}
    if "torch" in median:
        result["ratio"] = round(median["torch"] / median["jax"], 3)
    return {**result, **seconds}


def jax_forward(name: str, pixels: np.ndarray) -> tuple[Callable[[], object], dict[str, float]]:
    """The compiled forward pass under GAP, and the seconds it took to trace and to compile."""
    graphdef, trunk = nnx.split(castream.create_backbone(name, rngs=nnx.Rngs(0)))

    def forward(trunk: nnx.State, pixels: jax.Array) -> jax.Array:
        backbone = nnx.merge(graphdef, trunk)
        return backbone.classify(backbone.stages(pixels)[-1].mean((1, 2)))

    on_device = jax.device_put(pixels)
    begin = time.perf_counter()
    lowered = jax.jit(forward).lower(trunk, on_device)
    traced = time.perf_counter()
    compiled = lowered.compile()
    seconds = {"trace_seconds": traced - begin, "compile_seconds": time.perf_counter() - traced}
    return lambda: jax.block_until_ready(compiled(trunk, on_device)), {k: round(v, 2) for k, v in seconds.items()}


def torch_forward(name: str, pixels: np.ndarray, *, autocast: bool) -> Callable[[], object]:
    """torchvision's forward pass, normalisation included, on the device that JAX uses."""
    assert torch is not None
    assert torchvision is not None
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    model = getattr(torchvision.models, name)().eval().to(device, memory_format=torch.channels_last)
    mean, std = (torch.tensor(row, device=device).reshape(1, 3, 1, 1) for row in (IMAGENET_MEAN, IMAGENET_STD))
    images = torch.tensor(pixels, device=device).permute(0, 3, 1, 2)

    @torch.inference_mode()
    def run() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            model((images - mean) / std).cpu()

    return run


if __name__ == "__main__":
    main()
