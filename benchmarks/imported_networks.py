"""Imports networks of timm, and compares them with PyTorch: deviations, and the speed of the trunk pass.

    python benchmarks/imported_networks.py [--networks resnet50d@128,vit_small_patch16_224] [--batch 16] [--rounds 7]
        [--json FILE] [--quick]

Needs the extra castream_jax[torch]. Each network (NAME or NAME@PIXELS) is saved, loaded again, and given noise images.
Deviations are shares of the spread (largest minus smallest value) of the logits, and of the map that deviates most.
Weights are random; so are BatchNorm's statistics and, because they would hide what goes before, parameters that are all
one number as made: scales, biases, layer scales, classifiers of zeros. Trunk passes are timed in turn: the imported
one, ours where there is one of that name, and PyTorch's, eager and channels-last, on the same device. A network that is
refused counts as a missed bar. Prints Markdown, row by row; `--json FILE` writes all that was measured.
"""

# PyTorch is for comparison, where it is installed.
# pyright: reportMissingImports=false

from collections.abc import Callable
from pathlib import Path
import tempfile
import time
from typing import Any

from flax import nnx
import jax
import numpy as np
from program import as_json, exit_if, new_parser, parse
from timing import in_turn

import castream_jax as castream
from castream_jax.backbones import ImportedBackbone
from castream_jax.commands.bench import machine
from castream_jax.importing.timm_networks import open_timm
from castream_jax.runtime.cpu import prepare_cpu

NETWORKS = (
    *("resnet18d@128", "resnet50d@128", "seresnext50_32x4d@128", "regnety_004@128", "densenet121@128"),
    *("efficientnet_b0@128", "mobilenetv3_large_100@128", "convnextv2_nano@128", "edgenext_x_small@128"),
    *("poolformer_s12@128", "vit_small_patch16_224", "deit3_small_patch16_224", "swin_tiny_patch4_window7_224"),
    *("eva02_tiny_patch14_224", "mixer_s32_224"),
)
HEADER = """| network | images | pooled | maps | logits | worst map | import, s | images/s | PyTorch's | ours |
|---|---:|---|---:|---:|---:|---:|---:|---:|---:|"""
IMAGES = 3  # that are compared


def main() -> None:
    prepare_cpu()  # as the command line does
    parser = new_parser(__doc__)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--batch", type=int, default=16, help="images of a trunk pass that is timed")
    parser.add_argument("--rounds", type=int, default=7, help="0: no times")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parse(parser, networks="resnet10t@64", batch=2, rounds=1)
    networks: dict[str, dict[str, Any]] = {}
    print(HEADER, flush=True)
    for text in arguments.networks.split(","):
        name, _, size = text.partition("@")
        networks[text] = measure(name, int(size) if size else None, arguments.batch, arguments.rounds)
        print(row(text, networks[text]), flush=True)
    missed = [f"{name}: {found['refused']}" for name, found in networks.items() if "refused" in found]
    if arguments.json:
        report = {"networks": networks, "batch": arguments.batch, "machine": machine()}
        arguments.json.write_text(as_json(report, missed))
    exit_if(missed)


def measure(name: str, size: int | None, batch: int, rounds: int) -> dict[str, Any]:
    """What is known of one network once it is imported, or why it is refused."""
    module = randomised(name)
    begin = time.perf_counter()
    try:
        backbone = castream.import_torch(module, image_size=size)
    except ValueError as error:
        return {"refused": str(error)}
    seconds = time.perf_counter() - begin
    with tempfile.TemporaryDirectory() as folder:
        castream.save_backbone(backbone, f"{folder}/trunk")
        loaded = castream.load_backbone(f"{folder}/trunk")
    assert isinstance(loaded, ImportedBackbone)
    pixels = noise(IMAGES, loaded)
    ours = np.asarray(loaded.classify(castream.NativePooling()(loaded.stages(pixels))[0]))
    theirs = of_torch(module, loaded, pixels)().numpy()
    result = {
        "image_size": loaded.trunk.image_size,
        "pooled": "class token" if loaded.pools_itself else "average",
        "maps": len(loaded.stage_dims),
        "deviation": {
            "logits": float(np.abs(ours - theirs).max() / np.ptp(theirs)),
            "map": max(value for what, value in loaded.trunk.checked if not what.startswith("logits")),
        },
        "import_seconds": round(seconds, 1),
    }
    return result | ({"images_per_second": speeds(module, loaded, name, batch, rounds)} if rounds else {})


def randomised(name: str) -> Any:
    """The network with random weights and statistics, in inference mode."""
    timm = open_timm()
    import torch

    torch.manual_seed(0)
    module = timm.create_model(name, pretrained=False).eval()
    for tensor, buffer in module.named_buffers():
        if tensor.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        if tensor.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.numel() > 1 and parameter.min() == parameter.max():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return module


def noise(count: int, backbone: ImportedBackbone) -> np.ndarray:
    """Pixels in [0, 1] of images of the network's size."""
    size = backbone.trunk.image_size
    return np.random.default_rng(0).random((count, size, size, 3), np.float32)


def speeds(module: Any, imported: ImportedBackbone, name: str, batch: int, rounds: int) -> dict[str, float]:
    """Images per second of each side's trunk pass."""
    pixels = noise(batch, imported)
    sides = {"imported": of_jax(imported, pixels)}
    if name in castream.backbone_names():
        sides["ours"] = of_jax(castream.create_backbone(name, rngs=nnx.Rngs(0)), pixels)
    sides["torch"] = of_torch(module, imported, pixels, features=True)
    return {side: round(batch / seconds, 1) for side, seconds in in_turn(sides, rounds).items()}


def of_jax(backbone: castream.Backbone, pixels: np.ndarray) -> Callable[[], Any]:
    """The compiled trunk pass."""
    graphdef, state = nnx.split(backbone)
    run = jax.jit(lambda state, pixels: nnx.merge(graphdef, state).stages(pixels)[-1])
    on_device = jax.device_put(pixels)
    return lambda: jax.block_until_ready(run(state, on_device))


def of_torch(
    module: Any, backbone: ImportedBackbone, pixels: np.ndarray, *, features: bool = False
) -> Callable[[], Any]:
    """The network itself, or its last map alone, on the device that JAX uses."""
    import torch

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    module = module.to(device, memory_format=torch.channels_last)
    x = (pixels - np.array(backbone.mean, np.float32)) / np.array(backbone.std, np.float32)
    images = torch.from_numpy(x).permute(0, 3, 1, 2).to(device)

    @torch.inference_mode()
    def run() -> Any:
        return (module.forward_features if features else module)(images).cpu()

    return run


def row(name: str, found: dict[str, Any]) -> str:
    """One network's line."""
    if "refused" in found:
        return f"| `{name}` | refused: {found['refused']} |"
    deviation, speed = found["deviation"], found.get("images_per_second", {})
    cells = [
        *(f"`{name.partition('@')[0]}`", found["image_size"], found["pooled"], found["maps"]),
        *(f"{deviation['logits']:.1e}", f"{deviation['map']:.1e}", f"{found['import_seconds']:.0f}"),
        *(speed.get(side, "") for side in ("imported", "torch", "ours")),
    ]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
