"""The trunk pass of an imported network beside our own and PyTorch's, interleaved, as ratios of medians.

python benchmarks/import_speed.py [NAME=resnet50] [--batch 16] [--rounds 7]      needs the extra castream_jax[torch]

NAME is timm's; where we have a backbone of that name, it is run, too. All run on one set of noise images.
"""

import argparse
from collections.abc import Callable
import statistics
import time

import jax
import numpy as np

import castream_jax as castream
from castream_jax.importing.timm_networks import open_timm


def main() -> None:
    """Prints images per second and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="resnet50")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    castream.prepare_cpu()
    passes = prepared(arguments.name, arguments.batch)
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(arguments.rounds + 1):
        for name, run in passes.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    for name, median in medians.items():
        print(
            f"{name}: {arguments.batch / median:.1f} images/s, imported is {median / medians['imported']:.2f} x as fast"
        )


def prepared(name: str, batch: int) -> dict[str, Callable[[], object]]:
    """What is timed, each as a function that waits for its result."""
    timm = open_timm()
    import torch

    module = timm.create_model(name, pretrained=False).eval()
    imported = castream.import_torch(module)
    size = imported.trunk.image_size
    pixels = np.random.default_rng(0).random((batch, size, size, 3), np.float32)
    images = torch.from_numpy(np.asarray(imported.normalise(pixels)).transpose(0, 3, 1, 2).copy())
    backbones: dict[str, castream.Backbone] = {"imported": imported}
    if name in castream.backbone_names():
        from flax import nnx

        backbones["ours"] = castream.create_backbone(name, rngs=nnx.Rngs(0))

    def of_jax(backbone: castream.Backbone) -> Callable[[], object]:
        from flax import nnx

        graphdef, state = nnx.split(backbone)
        run = jax.jit(lambda state, pixels: nnx.merge(graphdef, state).stages(pixels)[-1])
        return lambda: run(state, pixels).block_until_ready()

    def of_torch(module, images) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode():
                return module.forward_features(images)

        return run

    last = module.to(memory_format=torch.channels_last)
    return {
        **{name: of_jax(backbone) for name, backbone in backbones.items()},
        "PyTorch, eager, channels last": of_torch(last, images.to(memory_format=torch.channels_last)),
    }


if __name__ == "__main__":
    main()
