"""Each attribution method and each metric alone: seconds per image, and in forward passes of the same trunk.

    python benchmarks/methods.py [--backbone cifar_resnet20] [--images 8] [--quick]
    python benchmarks/methods.py --backbone resnet50 --images 8 --methods gradcam,gradcam++

Two heads, GAP and a stream, on random weights and images; a call has all images, and its one trunk pass counts as part
of it. A metric is measured of one map per head. Where pytorch-grad-cam is installed, its maps of the same trunk under
GAP are timed in turn, twice as many as one head's, since it takes a trunk per head. Prints one JSON object.
"""

from collections.abc import Callable
import importlib.util
from typing import Any

from flax import nnx
import jax
import numpy as np
from program import finish, new_parser, parse
from timing import in_turn

import castream_jax as castream
from castream_jax.attribution import METHODS
from castream_jax.commands.bench import machine
from castream_jax.metrics import ALL_METRICS
from castream_jax.runtime.cpu import prepare_cpu

try:
    import pytorch_sides
except ModuleNotFoundError:  # PyTorch is for comparison, where it is installed
    pytorch_sides = None


def main() -> None:
    prepare_cpu()  # as the command line does
    parser = new_parser(__doc__)
    parser.add_argument("--backbone", default="cifar_resnet20", help="a ResNet of torchvision's or a CIFAR ResNet")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--metrics", default=",".join(ALL_METRICS))
    parser.add_argument("--rounds", type=int, default=3)
    methods, metrics = "gradcam,scorecam,attention", "AD,I"
    arguments = parse(parser, backbone="cifar_resnet8", images=2, methods=methods, metrics=metrics, rounds=1)
    size = 32 if arguments.backbone.startswith("cifar") else 224
    backbone = castream.create_backbone(arguments.backbone, rngs=nnx.Rngs(0))
    stream = castream.CrossAttentionStream(backbone.stage_dims, rngs=nnx.Rngs(1))
    model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling(), "ca": stream})
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (arguments.images, size, size, 3), np.uint8)
    pixels, labels = jax.device_put(images.astype(np.float32) / 255), rng.integers(0, 10, arguments.images)
    graphdef, state = nnx.split(model)
    forward = jax.jit(lambda state, pixels: nnx.merge(graphdef, state).predict(pixels))
    maps = castream.attribute(model, pixels, labels, ("gradcam",))

    def measured(function: Callable[[], Any], name: str = "") -> dict[str, float]:
        functions = {
            "forward": lambda: jax.block_until_ready(forward(state, pixels)),
            "ours": lambda: jax.block_until_ready(function()),
        }
        if pytorch_sides is not None and importlib.util.find_spec("pytorch_grad_cam"):
            theirs = pytorch_sides.usual_maps(model, name, images, labels)
            if theirs is not None:
                functions["pytorch_grad_cam"] = theirs
        seconds = in_turn(functions, arguments.rounds)
        result = {
            "milliseconds_per_image": round(1000 * seconds["ours"] / len(images), 3),
            "forward_passes": round(seconds["ours"] / seconds["forward"], 2),
        }
        if "pytorch_grad_cam" in seconds:
            result["over_pytorch_grad_cam"] = round(2 * seconds["pytorch_grad_cam"] / seconds["ours"], 2)
        return result

    result = {
        "backbone": arguments.backbone,
        "images": arguments.images,
        "size": size,
        "methods": {
            name: measured(lambda name=name: castream.attribute(model, pixels, labels, (name,)), name)
            for name in arguments.methods.split(",")
        },
        "metrics": {
            name: measured(lambda name=name: castream.score(model, pixels, labels, maps, metrics=(name,)))
            for name in arguments.metrics.split(",")
        },
        "machine": machine(),
    }
    finish(result)


if __name__ == "__main__":
    main()
