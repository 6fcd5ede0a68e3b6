"""Training step of seven streams beside one ResNet-50 against that of one: what the other six cost.

    python benchmarks/many_streams.py [--backbone resnet50] [--batch 64] [--size 224] [--quick]

The seven read from S0, S1, S2, S3 and S4 on; the sixth is PROJ -> CA, the seventh class-specific, both from S0. The one
is the stream from S0. Both steps are compiled, warmed up and timed in turn, A B A B …, so that a drift of the machine
hits both; the ratio of the medians is what matters (1.25 is the target). Prints one JSON object.
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
from castream_jax.training.step import initial_state, make_train_step, split_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224, help="image side in pixels")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="a small run that only shows that it works")
    arguments = parser.parse_args()
    keep_freed_memory()  # as the command line does
    if arguments.quick:
        arguments.backbone, arguments.batch, arguments.size, arguments.rounds = "cifar_resnet8", 8, 32, 3

    backbone = castream.create_backbone(arguments.backbone, rngs=nnx.Rngs(0))
    dims = backbone.stage_dims
    streams = {
        f"s{stage}": castream.CrossAttentionStream(dims, start_stage=stage, rngs=nnx.Rngs(stage))
        for stage in range(len(dims))
    }
    streams["proj_ca"] = castream.CrossAttentionStream(dims, block="proj_ca", rngs=nnx.Rngs(5))
    streams["class_specific"] = castream.CrossAttentionStream(dims, num_queries=backbone.num_classes, rngs=nnx.Rngs(6))
    rng = np.random.default_rng(0)
    shape = (arguments.batch, arguments.size, arguments.size, 3)
    batch = {
        "pixels": jax.numpy.asarray(rng.integers(0, 256, shape, np.uint8)),
        "label": jax.numpy.asarray(rng.integers(0, backbone.num_classes, arguments.batch, np.int32)),
    }
    one = _stepper(castream.Model(backbone, {"s0": streams["s0"]}), batch)
    many = _stepper(castream.Model(backbone, streams), batch)
    for step in (one, many):
        step()
        step()
    seconds: dict[str, list[float]] = {"one": [], "many": []}
    for _ in range(arguments.rounds):
        seconds["one"].append(_timed(one))
        seconds["many"].append(_timed(many))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(
        json.dumps(
            {
                "backbone": arguments.backbone,
                "batch": arguments.batch,
                "size": arguments.size,
                "streams": list(streams),
                "one_images_per_second": round(arguments.batch / median["one"], 1),
                "many_images_per_second": round(arguments.batch / median["many"], 1),
                "many_over_one": round(median["many"] / median["one"], 3),
                "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, {platform.machine()}",
                "jax": jax.__version__,
            }
        )
    )


def _stepper(model: castream.Model, batch: dict[str, jax.Array]) -> Callable[[], None]:
    """One training step of all streams of `model`, waited for."""
    split = split_model(model, "streams")
    optimizer = sgd(lambda _: 0.1, momentum=0.9, weight_decay=1e-4)
    step = jax.jit(make_train_step(split, optimizer), donate_argnums=0)
    state = initial_state(split, optimizer)

    def run() -> None:
        nonlocal state
        state = jax.block_until_ready(step(state, split.frozen, batch))

    return run


def _timed(function: Callable[[], None]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
