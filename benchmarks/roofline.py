"""What bounds the programs: their arithmetic and memory traffic over the rates that this machine reaches.

    python benchmarks/roofline.py [--batch 16] [--size 224] [--quick]

The matrix rate is that of the product of two square matrices in the trunk's type, the copy rate that of adding 1 to a
large array in place. Arithmetic and bytes are what XLA counts in the compiled program; bytes are those of all operands
and results of each of its instructions, so that what stays in a cache counts too, and a share may exceed 1. Prints one
JSON object.
"""

from collections.abc import Callable
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
from program import finish, new_parser, parse
from timing import default_dtype, in_turn, on_accelerator
from train_step import forward_pass, peak_bytes, seven_streams, training_step

import castream_jax as castream
from castream_jax.commands.bench import machine
from castream_jax.runtime.cpu import prepare_cpu


def main() -> None:
    prepare_cpu()  # as the command line does
    parser = new_parser(__doc__)
    parser.add_argument("--backbones", default="resnet50,convnext_tiny,efficientnet_b0", help="their forward passes")
    parser.add_argument("--trained", default="resnet50", help="backbone beside which streams are trained")
    parser.add_argument("--batch", type=int, default=256 if on_accelerator() else 16)
    parser.add_argument("--size", type=int, default=224, help="image side in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parse(parser, backbones="cifar_resnet8", trained="cifar_resnet8", batch=4, size=32, rounds=1)
    side, gigabytes = (8192, 4.0) if on_accelerator() else (2048, 0.25)
    if arguments.quick:
        side, gigabytes = 256, 0.01
    dtype = default_dtype()
    rates = measured_rates(side, gigabytes, dtype)

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (arguments.batch, arguments.size, arguments.size, 3), np.uint8)
    programs: dict[str, tuple[Callable[[], Any], Any]] = {}
    for name in arguments.backbones.split(","):
        backbone = create(name, dtype)
        programs[f"forward pass, {name}"] = forward_pass(backbone, jnp.asarray(pixels))
    backbone = create(arguments.trained, dtype)
    streams = seven_streams(backbone)
    labels = rng.integers(0, backbone.num_classes, arguments.batch, np.int32)
    batch = {"pixels": jnp.asarray(pixels), "label": jnp.asarray(labels)}
    for title, heads in (("one stream", {"s0": streams["s0"]}), ("seven streams", streams)):
        programs[f"training step of {title}, {arguments.trained}"] = training_step(
            castream.Model(backbone, heads), batch
        )
    seconds = in_turn({name: run for name, (run, _) in programs.items()}, arguments.rounds)
    rows = {name: row(compiled, seconds[name], arguments.batch, rates) for name, (_, compiled) in programs.items()}
    shape = {"batch": arguments.batch, "size": arguments.size, "dtype": dtype}
    finish({**shape, **rates, "programs": rows, "machine": machine()})


def create(name: str, dtype: Any) -> castream.Backbone:
    backbone = castream.create_backbone(name, rngs=nnx.Rngs(0))
    backbone.dtype = dtype
    return backbone


def measured_rates(side: int, gigabytes: float, dtype: str) -> dict[str, float]:
    """Operations a second of a matrix product, bytes a second of a copy (read and written)."""
    matrix = jnp.ones((side, side), dtype)
    array = jnp.ones(int(gigabytes * 2**30 / 4), jnp.float32)
    multiply, add = jax.jit(jnp.matmul), jax.jit(lambda x: x + 1, donate_argnums=0)

    def add_in_place() -> None:
        nonlocal array
        array = jax.block_until_ready(add(array))

    functions = {"multiply": lambda: jax.block_until_ready(multiply(matrix, matrix)), "add": add_in_place}
    seconds = in_turn(functions, rounds=9)
    return {"matrix_flops": 2 * side**3 / seconds["multiply"], "copy_bytes": 2 * array.nbytes / seconds["add"]}


def row(compiled: Any, seconds: float, batch: int, rates: dict[str, float]) -> dict[str, Any]:
    """What a program does for an image, and how much of the rates it reaches."""
    cost = compiled.cost_analysis()
    flops, moved = cost["flops"], cost["bytes accessed"]
    return {
        "images_per_second": round(batch / seconds, 1),
        "gflop_per_image": round(flops / batch / 1e9, 3),
        "megabytes_per_image": round(moved / batch / 1e6, 1),
        "flops_share": round(flops / seconds / rates["matrix_flops"], 3),
        "bytes_share": round(moved / seconds / rates["copy_bytes"], 3),
        "peak_bytes": peak_bytes(compiled),
    }


if __name__ == "__main__":
    main()
