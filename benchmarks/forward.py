"""Forward pass of the trunks against PyTorch's (evaluation mode, no gradients, channels-last), and their compile time.

    python benchmarks/forward.py [--backbones resnet50,convnext_tiny] [--batch 16] [--size 224] [--unprepared] [--quick]

All are warmed up and timed in turn. PyTorch's forward pass is torchvision's as it is, compiled (`torch.compile`), and
under bfloat16 autocast; `ratio`, above 1 where JAX is faster, is to PyTorch as it is, `ratio_compiled` to the faster of
the two, both in the type of `--dtype`. Weights are random, the same on both sides only in shape. On an accelerator,
batches have 256 images and the trunk is bfloat16. Prints one JSON object; without torchvision there are no ratios.
"""

# PyTorch is for comparison, where it is installed.
# pyright: reportMissingImports=false, reportOptionalMemberAccess=false

from collections.abc import Callable
import sys
import time
from typing import Any, get_args

from flax import nnx
import jax
import numpy as np
from program import finish, new_parser, parse
from timing import default_dtype, in_turn, on_accelerator

import castream_jax as castream
from castream_jax.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD
from castream_jax.commands.bench import machine
from castream_jax.kernels.precision import Dtype
from castream_jax.runtime.cpu import prepare_cpu

try:
    from pytorch_models import can_compile, computing_in, torch, torchvision
except ModuleNotFoundError:
    torch = torchvision = can_compile = computing_in = None


def main() -> None:
    if "--unprepared" not in sys.argv[1:]:
        prepare_cpu()  # as the command line does; before the defaults below, which ask JAX for its devices
    parser = new_parser(__doc__)
    parser.add_argument("--unprepared", action="store_true", help="as where nobody calls castream.prepare_cpu()")
    parser.add_argument("--backbones", default="resnet50,convnext_tiny,efficientnet_b0")
    parser.add_argument("--batch", type=int, default=256 if on_accelerator() else 16)
    parser.add_argument("--size", type=int, default=224, help="image side in pixels")
    parser.add_argument("--dtype", choices=get_args(Dtype), default=default_dtype(), help="of the trunk")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parse(parser, backbones="resnet18", batch=2, size=64, rounds=1)
    pixels = np.random.default_rng(0).random((arguments.batch, arguments.size, arguments.size, 3), np.float32)
    of_backbones = {
        name: measure(name, pixels, arguments.dtype, arguments.rounds) for name in arguments.backbones.split(",")
    }
    shape = {"batch": arguments.batch, "size": arguments.size, "dtype": arguments.dtype}
    versions = {"torch": None if torch is None else torch.__version__, "machine": machine()}
    finish({"backbones": of_backbones, **shape, **versions})


def measure(name: str, pixels: np.ndarray, dtype: Dtype, rounds: int) -> dict[str, Any]:
    """Compile seconds, images per second, and the ratios of the latter to PyTorch's."""
    compiled, result = jax_forward(name, pixels, dtype)
    sides: dict[str, Callable[[], object]] = {"jax": compiled}
    if torchvision is not None and can_compile is not None and not name.startswith("cifar"):
        sides["torch"] = torch_forward(name, pixels, dtype)
        if can_compile():
            sides["torch_compiled"] = torch_forward(name, pixels, dtype, compiled=True)
        if dtype == "float32":
            sides["torch_bfloat16"] = torch_forward(name, pixels, "bfloat16")
    seconds = in_turn(sides, rounds)
    result["images_per_second"] = {side: round(len(pixels) / value, 1) for side, value in seconds.items()}
    if "torch" in seconds:
        result["ratio"] = round(seconds["torch"] / seconds["jax"], 3)
        best = min(seconds["torch"], seconds.get("torch_compiled", seconds["torch"]))
        result["ratio_compiled"] = round(best / seconds["jax"], 3)
    return result


def jax_forward(name: str, pixels: np.ndarray, dtype: Dtype) -> tuple[Callable[[], object], dict[str, Any]]:
    """The compiled forward pass under GAP, and the seconds it took to trace and to compile."""
    backbone = castream.create_backbone(name, rngs=nnx.Rngs(0))
    backbone.dtype = dtype
    graphdef, trunk = nnx.split(backbone)

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


def torch_forward(name: str, pixels: np.ndarray, dtype: Dtype, *, compiled: bool = False) -> Callable[[], object]:
    """torchvision's forward pass, normalisation included, on the device that JAX uses."""
    assert torch is not None
    assert torchvision is not None
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    model = getattr(torchvision.models, name)().eval().to(device, memory_format=torch.channels_last)
    run_model = torch.compile(model) if compiled else model
    mean, std = (torch.tensor(row, device=device).reshape(1, 3, 1, 1) for row in (IMAGENET_MEAN, IMAGENET_STD))
    images = torch.tensor(pixels, device=device).permute(0, 3, 1, 2)

    @torch.no_grad()
    def run() -> None:
        assert computing_in is not None
        with computing_in(dtype, device):
            run_model((images - mean) / std).cpu()

    return run


if __name__ == "__main__":
    main()
