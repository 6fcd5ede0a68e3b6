"""Training step: against the forward pass of the same backbone, with seven streams against one, against PyTorch.

    python benchmarks/train_step.py [--backbone resnet50] [--batch 64] [--size 224] [--quick]

The forward pass is the backbone's own, under GAP. A step is that of the stream from S0; of seven streams: from S0, S1,
S2, S3 and S4 on, PROJ -> CA, and class-specific. PyTorch's step has the same stream and the trunk without gradients, in
channels-last memory, as it is and with the trunk compiled. All are compiled, warmed up and timed in turn; ratios of
medians are what matters. `peak_bytes` is what the compiler allocates for a program: arguments, results and temporary.
On an accelerator, batches have 256 images, the trunk is bfloat16 here and under autocast there, the images lie on the
device, and `host_gap` is the share of its time that passes between steps. Prints one JSON object.
"""

from collections.abc import Callable
from typing import Any

from device_trace import idle_share
from flax import nnx
import jax
import numpy as np
from program import finish, new_parser, parse
from timing import default_dtype, in_turn, on_accelerator

import castream_jax as castream
from castream_jax.commands.bench import machine
from castream_jax.experiment.model_parts import model_parts
from castream_jax.model import to_unit_range
from castream_jax.runtime.cpu import prepare_cpu
from castream_jax.training.optimizer import sgd
from castream_jax.training.step import initial_state, make_train_step

try:
    import pytorch_sides
except ModuleNotFoundError:  # PyTorch is for comparison, where it is installed
    pytorch_sides = None


def main() -> None:
    prepare_cpu()  # as the command line does
    parser = new_parser(__doc__)
    parser.add_argument("--backbone", default="resnet50", help="a ResNet of torchvision's or a CIFAR ResNet")
    parser.add_argument("--batch", type=int, default=256 if on_accelerator() else 64)
    parser.add_argument("--size", type=int, default=224, help="image side in pixels")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default=default_dtype(), help="of the trunk")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parse(parser, backbone="cifar_resnet8", batch=8, size=32, rounds=3)

    backbone = castream.create_backbone(arguments.backbone, rngs=nnx.Rngs(0))
    backbone.dtype = arguments.dtype
    streams = seven_streams(backbone)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (arguments.batch, arguments.size, arguments.size, 3), np.uint8)
    labels = rng.integers(0, backbone.num_classes, arguments.batch, np.int32)
    batch = jax.device_put({"pixels": pixels, "label": labels})

    one = castream.Model(backbone, {"s0": streams["s0"]})
    programs = {
        "forward": forward_pass(backbone, batch["pixels"]),
        "step": training_step(one, batch),
        "seven_streams": training_step(castream.Model(backbone, streams), batch),
    }
    functions = {name: run for name, (run, _) in programs.items()}
    if pytorch_sides is not None:
        for name, compiled in (("pytorch", False), ("pytorch_compiled", True)):
            step = pytorch_sides.training_step(one, pixels, labels, compiled=compiled)
            if step is not None:
                functions[name] = step
    seconds = in_turn(functions, arguments.rounds)
    theirs = [value for name, value in seconds.items() if name.startswith("pytorch")]
    result = {
        "backbone": arguments.backbone,
        "batch": arguments.batch,
        "size": arguments.size,
        "dtype": arguments.dtype,
        "images_per_second": {name: round(arguments.batch / value, 1) for name, value in seconds.items()},
        "step_over_forward": round(seconds["step"] / seconds["forward"], 3),
        "seven_over_one": round(seconds["seven_streams"] / seconds["step"], 3),
        "over_pytorch": round(min(theirs) / seconds["step"], 3) if theirs else None,
        "host_gap": idle_share(*without_waiting(one, batch)) if on_accelerator() else None,
        "peak_bytes": {name: peak_bytes(compiled) for name, (_, compiled) in programs.items()},
        "streams": list(streams),
        "machine": machine(),
    }
    finish(result)


def seven_streams(backbone: castream.Backbone) -> dict[str, castream.CrossAttentionStream]:
    dims = backbone.stage_dims
    streams = {
        f"s{stage}": castream.CrossAttentionStream(dims, start_stage=stage, rngs=nnx.Rngs(stage))
        for stage in range(len(dims))
    }
    streams["proj_ca"] = castream.CrossAttentionStream(dims, block="proj_ca", rngs=nnx.Rngs(5))
    streams["class_specific"] = castream.CrossAttentionStream(dims, num_queries=backbone.num_classes, rngs=nnx.Rngs(6))
    return streams


def forward_pass(backbone: castream.Backbone, pixels: jax.Array) -> tuple[Callable[[], Any], Any]:
    """Logits under GAP, waited for; and the compiled program."""
    graphdef, trunk = nnx.split(backbone)

    def forward(trunk: nnx.State, pixels: jax.Array) -> jax.Array:
        model = nnx.merge(graphdef, trunk)
        return model.classify(model.stages(to_unit_range(pixels))[-1].mean((1, 2)))

    compiled = jax.jit(forward).lower(trunk, pixels).compile()
    return lambda: jax.block_until_ready(compiled(trunk, pixels)), compiled


def training_step(model: castream.Model, batch: dict[str, jax.Array]) -> tuple[Callable[[], Any], Any]:
    """One training step of all streams of `model`, waited for; and the compiled program."""
    step, frozen, state = compiled_step(model, batch)

    def run() -> None:
        nonlocal state
        state = jax.block_until_ready(step(state, frozen, batch))

    return run, step


def without_waiting(
    model: castream.Model, batch: dict[str, jax.Array]
) -> tuple[Callable[[], None], Callable[[], object]]:
    """What starts a step, as the training loop does, and what waits for the last one."""
    step, frozen, state = compiled_step(model, batch)

    def run() -> None:
        nonlocal state
        state = step(state, frozen, batch)

    return run, lambda: jax.block_until_ready(state)


def compiled_step(model: castream.Model, batch: dict[str, jax.Array]) -> tuple[Any, Any, Any]:
    """The step, the frozen arrays and the state it starts from."""
    parts = model_parts(model, "streams")
    optimizer = sgd(lambda _: 0.1, momentum=0.9, weight_decay=1e-4)
    state = initial_state(parts, optimizer)
    step = jax.jit(make_train_step(parts, optimizer), donate_argnums=0)
    return step.lower(state, parts.frozen, batch).compile(), parts.frozen, state


def peak_bytes(compiled: Any) -> int | None:
    """Arguments, results that take no argument's place, and temporary memory; None where the compiler cannot tell."""
    memory = compiled.memory_analysis()
    if memory is None:
        return None
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + results + memory.temp_size_in_bytes


if __name__ == "__main__":
    main()
