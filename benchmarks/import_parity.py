"""Imports networks of timm with random weights and compares them with PyTorch, as a Markdown table.

python benchmarks/import_parity.py [NAME[@PIXELS] …]      needs the extra castream_jax[torch]

Each is saved, loaded again, and given a batch of three noise images; deviations are shares of the spread (largest minus
smallest value), of the logits and of the worst map. BatchNorm's statistics are drawn, and noise is added to parameters
that are all one number as made: scales, biases, layer scales, and classifiers of zeros would hide what goes before.
"""

import sys
import tempfile
import time

import numpy as np

import castream_jax as castream
from castream_jax.importing.timm_networks import open_timm

NETWORKS = (
    *("resnet18d@128", "resnet50d@128", "seresnext50_32x4d@128", "regnety_004@128", "densenet121@128"),
    *("efficientnet_b0@128", "mobilenetv3_large_100@128", "convnextv2_nano@128", "edgenext_x_small@128"),
    *("poolformer_s12@128", "vit_small_patch16_224", "deit3_small_patch16_224", "swin_tiny_patch4_window7_224"),
    *("eva02_tiny_patch14_224", "mixer_s32_224"),
)


def main() -> None:
    """Prints a row as soon as it is known."""
    print("| network | images | pooled | maps | logits | worst map | import, s |")
    print("|---|---:|---|---:|---:|---:|---:|")
    for text in sys.argv[1:] or NETWORKS:
        name, _, size = text.partition("@")
        print(row(name, int(size) if size else None), flush=True)


def row(name: str, size: int | None) -> str:
    """One network's line."""
    begin = time.perf_counter()
    module = randomised(name, size)
    try:
        backbone = castream.import_torch(module, image_size=size)
    except ValueError as error:
        return f"| `{name}` | | | | refused: {error} | | |"
    seconds = time.perf_counter() - begin
    with tempfile.TemporaryDirectory() as folder:
        castream.save_backbone(backbone, f"{folder}/trunk")
        loaded = castream.load_backbone(f"{folder}/trunk")
    pixels = np.random.default_rng(1).random((3, backbone.trunk.image_size, backbone.trunk.image_size, 3), np.float32)
    ours = np.asarray(loaded.classify(castream.NativePooling()(loaded.stages(pixels))[0]))
    deviation = np.abs(ours - by_torch(module, loaded, pixels)).max() / np.ptp(ours)
    maps = max(value for what, value in backbone.trunk.checked if not what.startswith("logits"))
    pooled = "class token" if backbone.pools_itself else "average"
    side, count = backbone.trunk.image_size, len(backbone.stage_dims)
    return f"| `{name}` | {side} | {pooled} | {count} | {deviation:.1e} | {maps:.1e} | {seconds:.0f} |"


def randomised(name: str, size: int | None):
    """The network, in inference mode."""
    timm = open_timm()
    import torch  # pyright: ignore[reportMissingImports]

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


def by_torch(module, backbone: castream.Backbone, pixels: np.ndarray) -> np.ndarray:
    """PyTorch's logits."""
    import torch  # pyright: ignore[reportMissingImports]

    x = (pixels - np.array(backbone.mean, np.float32)) / np.array(backbone.std, np.float32)
    with torch.no_grad():
        return module(torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))).numpy()


if __name__ == "__main__":
    main()
