"""Makes `tiny/`, an imported trunk that the everyday tests load without PyTorch, and what PyTorch says of it.

python tests/importing/make_tiny.py      needs the extra castream_jax[torch]

The network has what converted networks have: a strided stem, BatchNorm with statistics, a depthwise and a 1 x 1
convolution, a residual sum, and a LayerNorm between pooling and classifier.
"""

from pathlib import Path

import numpy as np
import torch  # pyright: ignore[reportMissingImports]

SIZE, CLASSES = 64, 10
FOLDER = Path(__file__).parent / "tiny"


class Tiny(torch.nn.Module):
    """Two stages, eight and sixteen channels."""

    def __init__(self, classes: int = CLASSES):
        super().__init__()
        nn = torch.nn
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.SiLU())
        self.mix = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.GELU(), nn.Conv2d(16, 16, 1))
        self.out = nn.Identity()
        self.norm = nn.LayerNorm(16)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(16, classes)

    def forward(self, x):
        x = self.down(self.stem(x))
        x = self.out(x + self.mix(x))
        return self.fc(self.drop(self.norm(x.mean((2, 3)))))


def tiny(classes: int = CLASSES) -> Tiny:
    """With parameters, and statistics of BatchNorm, that are always the same."""
    torch.manual_seed(0)
    network = Tiny(classes)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network


def pixels() -> np.ndarray:
    """Three images in [0, 1]."""
    return np.random.default_rng(1).random((3, SIZE, SIZE, 3), np.float32)


def main() -> None:
    """Writes the folder and, beside it, `tiny_golden.npz`."""
    import castream_jax as castream

    network = tiny().eval()
    backbone = castream.import_torch(
        network, image_size=SIZE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3), taps=("stem", "down", "out")
    )
    castream.save_backbone(backbone, FOLDER)
    x = (pixels() - np.array(backbone.mean, np.float32)) / np.array(backbone.std, np.float32)
    with torch.no_grad():
        logits = network(torch.from_numpy(x.transpose(0, 3, 1, 2)))
    np.savez(FOLDER.with_name("tiny_golden.npz"), logits=logits.numpy())


if __name__ == "__main__":
    main()
