"""The small ConvNeXt of results.md: trained in PyTorch on CIFAR-10, then imported.

python docs/results/small_convnext.py DATA WEIGHTS.pth    DATA holds train/<class>/* and test/<class>/*; 20 minutes
castream import docs/results/small_convnext.py:convnext --weights WEIGHTS.pth --image-size 32 \
    --mean 0.4914,0.4822,0.4465 --std 0.247,0.243,0.261 --taps stages.0,stages.1,stages.2 --out trunks/convnext

Needs the extra castream_jax[torch].
"""

from pathlib import Path
import sys

import numpy as np
from PIL import Image
import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from castream_jax.importing.timm_networks import open_timm

MEAN, STD = (torch.tensor(row).reshape(1, 3, 1, 1) for row in ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)))
EPOCHS, BATCH, RATE = 10, 128, 4e-3


class SmallConvNext(nn.Module):
    """timm's blocks at 16 x 16, 8 x 8 and 4 x 4 positions, for images of 32 x 32 pixels."""

    def __init__(self, dims: tuple[int, ...] = (32, 64, 128), depths: tuple[int, ...] = (2, 4, 2)):
        super().__init__()
        open_timm()
        from timm.layers import LayerNorm2d  # pyright: ignore[reportMissingImports]
        from timm.models.convnext import ConvNeXtBlock  # pyright: ignore[reportMissingImports]

        stages = []
        for before, dim, depth in zip((3, *dims), dims, depths, strict=False):
            halved = nn.Conv2d(before, dim, 2, 2)
            ends = (halved, LayerNorm2d(dim)) if before == 3 else (LayerNorm2d(before), halved)
            stages.append(nn.Sequential(*ends, *(ConvNeXtBlock(dim) for _ in range(depth))))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(dims[-1], eps=1e-6)
        self.head = nn.Linear(dims[-1], 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.stages(x).mean((2, 3))))


def convnext() -> nn.Module:
    """Untrained."""
    return SmallConvNext()


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images `[N, 32, 32, 3]` and labels, classes in the order of their names."""
    files = [(path, number) for number, name in enumerate(sorted(folder.iterdir())) for path in sorted(name.iterdir())]
    images = [np.asarray(Image.open(path).convert("RGB")) for path, _ in files]
    return np.stack(images), np.array([number for _, number in files])


def normalised(images: np.ndarray) -> torch.Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    return ((tensor - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def main(data: str, weights: str) -> None:
    """Trains by AdamW under a one-cycle schedule, with shifts and flips, and writes the weights."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    (images, labels), (test_images, test_labels) = (read(Path(data) / split) for split in ("train", "test"))
    network, steps = convnext().to(memory_format=torch.channels_last), len(images) // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * steps, pct_start=0.15)
    rng = np.random.default_rng(0)
    for epoch in range(EPOCHS):
        network.train()
        order = rng.permutation(len(images))
        for step in range(steps):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            padded = np.pad(images[chosen], ((0, 0), (4, 4), (4, 4), (0, 0)))
            y, x = rng.integers(0, 9, 2)
            batch = padded[:, y : y + 32, x : x + 32]
            if rng.random() < 0.5:
                batch = batch[:, :, ::-1]
            logits = network(normalised(batch))
            loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels[chosen]), label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        network.eval()
        with torch.no_grad():
            parts = (slice(start, start + 500) for start in range(0, len(test_images), 500))
            right = [(network(normalised(test_images[part])).argmax(1).numpy() == test_labels[part]) for part in parts]
        print(f"epoch {epoch + 1}: accuracy {100 * np.concatenate(right).mean():.2f} %", flush=True)
    torch.save(network.state_dict(), weights)


if __name__ == "__main__":
    main(*sys.argv[1:])
