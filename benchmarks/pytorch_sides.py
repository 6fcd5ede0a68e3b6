"""The two PyTorch renderings as functions of NumPy images, both heads one after the other."""

# PyTorch is for comparison, where it is installed.
# pyright: reportMissingImports=false

from collections.abc import Callable, Sequence

import jax
import numpy as np
import pytorch_best
from pytorch_models import Network, can_compile, normalise
import pytorch_official
import torch

import castream_jax as castream


class Side:
    """A rendering with a network per head; called with uint8 pixels `[B, H, W, 3]` and labels.

    It returns `{(head, method): {"map", "AD", …: [B, …]}}`.
    """

    def __init__(self, model: castream.Model, evaluate: Callable[..., pytorch_official.Results]):
        self.networks = {head: _network(model, head) for head in model.heads}
        self.evaluate = evaluate

    def __call__(self, pixels: np.ndarray, labels: np.ndarray) -> dict[tuple[str, str], dict[str, np.ndarray]]:
        images, targets = _on_device(pixels), torch.tensor(labels, device=_device()).long()
        return {
            (head, method): values
            for head, network in self.networks.items()
            for method, values in self.evaluate(network, images, targets).items()
        }

    @property
    def images_seen(self) -> int:
        """Images passed forward so far."""
        return sum(network.images_seen for network in self.networks.values())


def official(model: castream.Model, methods: Sequence[str], batch: int) -> Side:
    return Side(model, lambda n, x, y: pytorch_official.evaluate(n, normalise(x), y, methods, batch))


def best(model: castream.Model, methods: Sequence[str], batch: int, example: np.ndarray) -> Side:
    """Compiled here for calls on as many images as `example` has."""

    def evaluate(
        network: Network, images: torch.Tensor, labels: torch.Tensor, methods: Sequence[str] = methods
    ) -> pytorch_official.Results:
        images = images.contiguous(memory_format=torch.channels_last)
        return pytorch_best.evaluate(network, images, labels, methods, batch)

    side = Side(model, evaluate)
    for network in side.networks.values():
        pytorch_best.prepare(network, dtype=model.backbone.dtype)
        evaluate(
            network, _on_device(example), torch.zeros(len(example), dtype=torch.long, device=_device()), ["gradcam"]
        )
        network.images_seen = 0
    return side


def usual(model: castream.Model, methods: Sequence[str], batch: int) -> Side:
    """Raises a ModuleNotFoundError where pytorch-grad-cam is not installed."""
    import pytorch_usual

    return Side(model, lambda n, x, y: pytorch_usual.evaluate(n, normalise(x), y, methods, batch))


def usual_maps(
    model: castream.Model, method: str, pixels: np.ndarray, labels: np.ndarray
) -> Callable[[], object] | None:
    """pytorch-grad-cam's maps under GAP of all `pixels`; None where it has no such method."""
    import pytorch_usual

    if method not in pytorch_usual.METHODS:
        return None
    network = _network(model, "gap")
    images, targets = normalise(_on_device(pixels)), torch.tensor(labels)
    return lambda: pytorch_usual.maps(network, images, targets, method, len(images))


def training_step(
    model: castream.Model, pixels: np.ndarray, labels: np.ndarray, *, compiled: bool
) -> Callable[[], object] | None:
    """A step of the one stream of `model` beside its trunk without gradients; None where `compiled` cannot be."""
    (head,) = model.heads
    network = _network(model, head)
    stream = network.stream
    assert stream is not None
    if compiled and not can_compile():
        return None
    pytorch_best.prepare(network, compiled=compiled, dtype=model.backbone.dtype)
    stream.requires_grad_(True)
    optimizer = torch.optim.SGD(stream.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    images = torch.tensor(pixels, device=_device()).permute(0, 3, 1, 2)  # channels last in memory, as they came
    targets = torch.tensor(labels, device=_device()).long()

    def run() -> None:
        with torch.no_grad():
            stages = network.stages(normalise(images / 255))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network.classify(stages), targets).backward()
        optimizer.step()
        if images.is_cuda:
            torch.cuda.synchronize()

    return run


def forward_pass(model: castream.Model, pixels: np.ndarray) -> Callable[[], object]:
    """Class probabilities of all `pixels` under GAP at PyTorch's best, and nothing else; for timing."""
    network = pytorch_best.prepare(_network(model, "gap"), dtype=model.backbone.dtype)
    inputs = normalise(_on_device(pixels).contiguous(memory_format=torch.channels_last))

    @torch.no_grad()
    def run() -> None:
        network(inputs).softmax(1).cpu()

    return run


def _network(model: castream.Model, head: str) -> Network:
    stream = model.heads[head]
    return Network(model.backbone, stream if isinstance(stream, castream.CrossAttentionStream) else None).to(_device())


def _on_device(pixels: np.ndarray) -> torch.Tensor:
    """uint8 `[B, H, W, 3]` as float32 `[B, 3, H, W]` in [0, 1]."""
    return (torch.tensor(pixels, device=_device()).permute(0, 3, 1, 2) / 255).contiguous()


def _device() -> str:
    """The one that JAX uses."""
    return "cuda" if jax.default_backend() == "gpu" else "cpu"
