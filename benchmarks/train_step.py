"""Training step against the forward pass of the same backbone: how much the stream and its update cost.

    python benchmarks/train_step.py [--backbone resnet50] [--batch 16] [--size 224] [--quick]

Both are compiled, warmed up and timed in turn, A B A B …, so that a drift of the machine hits both; the ratio of the
medians is what matters. Prints one JSON object.
"""

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
from castream_jax.cpu import keep_freed_memory
from castream_jax.training.optimizer import sgd
from castream_jax.training.step import initial_state, make_train_step, split_model, to_unit_range


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224, help="image side in pixels")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="a small run that only shows that it works")
    arguments = parser.parse_args()
    keep_freed_memory()  # as the command line does
    if arguments.quick:
        arguments.backbone, arguments.batch, arguments.size, arguments.rounds = "cifar_resnet8", 8, 32, 3

    backbone = castream.create_backbone(arguments.backbone, rngs=nnx.Rngs(0))
    stream = castream.CrossAttentionStream(backbone.stage_dims, rngs=nnx.Rngs(1))
    split = split_model(castream.Model(backbone, {"ca": stream}), "streams")
    optimizer = sgd(lambda _: 0.1, momentum=0.9, weight_decay=1e-4)
    step = jax.jit(make_train_step(split, optimizer), donate_argnums=0)
    state = initial_state(split, optimizer)

    rng = np.random.default_rng(0)
    shape = (arguments.batch, arguments.size, arguments.size, 3)
    batch = {
        "pixels": jax.numpy.asarray(rng.integers(0, 256, shape, np.uint8)),
        "label": jax.numpy.asarray(rng.integers(0, backbone.num_classes, arguments.batch, np.int32)),
    }
    graphdef, trunk = nnx.split(backbone)

    @jax.jit
    def forward(trunk: nnx.State, pixels: jax.Array) -> jax.Array:
        model = nnx.merge(graphdef, trunk)
        return model.classify(model.stages(to_unit_range(pixels))[-1].mean((1, 2)))

    def run_forward() -> None:
        jax.block_until_ready(forward(trunk, batch["pixels"]))

    def run_step() -> None:
        nonlocal state
        state = jax.block_until_ready(step(state, split.frozen, batch))

    for function in (run_forward, run_step):
        function()
        function()
    times = {"forward": [], "step": []}
    for _ in range(arguments.rounds):
        times["forward"].append(_seconds(run_forward))
        times["step"].append(_seconds(run_step))
    median = {name: statistics.median(values) for name, values in times.items()}
    print(
        json.dumps(
            {
                "backbone": arguments.backbone,
                "batch": arguments.batch,
                "size": arguments.size,
                "forward_images_per_second": round(arguments.batch / median["forward"], 1),
                "step_images_per_second": round(arguments.batch / median["step"], 1),
                "step_over_forward": round(median["step"] / median["forward"], 3),
                "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, {platform.machine()}",
                "jax": jax.__version__,
            }
        )
    )


def _seconds(function: Callable[[], None]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
