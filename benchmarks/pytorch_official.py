"""The official procedure as written (ftorres11/CA_Stream at 690615b), rendered anew.

Its two programs are followed, both run once per head and method: `recognition_imagenet.py` makes the maps,
`objrecon_imagenet.py` scores them (here without the files between the two). Nothing in them turns gradients off but
Score-CAM's masked passes, and no parameter is frozen: every other pass records its graph.
"""

# PyTorch is for comparison, where it is installed.
# pyright: reportMissingImports=false

from collections.abc import Callable, Sequence
import sys

import numpy as np
from pytorch_models import Network, denormalise, normalise
import scipy.ndimage
import torch
from torch.nn import functional

EPSILON = sys.float_info.epsilon
MASKS_PER_PASS = 128  # of Score-CAM, whatever the network
ROWS_PER_STEP = 8

Results = dict[str, dict[str, np.ndarray]]


def evaluate(
    network: Network, images: torch.Tensor, labels: torch.Tensor, methods: Sequence[str], batch: int
) -> Results:
    """Maps and metrics per image, `{method: {"map", "AD", …}}`, of normalised images under one head."""
    results = {}
    for method in methods:
        size = 1 if method == "scorecam" else batch  # its weights are reshaped to one image's
        maps = torch.cat(
            [make_maps(network, i, j, method) for i, j in zip(images.split(size), labels.split(size), strict=True)]
        )
        batches = zip(images.split(batch), labels.split(batch), maps.split(batch), strict=True)
        scores = [score(network, *of_batch) for of_batch in batches]
        results[method] = {"map": maps.cpu().numpy()}
        results[method] |= {name: np.concatenate([one[name] for one in scores]) for name in scores[0]}
    return results


# --- engine/attention.py: maps ---


def make_maps(network: Network, images: torch.Tensor, labels: torch.Tensor, method: str) -> torch.Tensor:
    """`activation_extractor` and `cam_processing`: forward with hooks on the last block, weights, sum, min-max."""
    recorded: dict[str, torch.Tensor] = {}

    def record(_module: object, _inputs: object, output: torch.Tensor) -> None:
        recorded["features"] = output.detach()
        if output.requires_grad:
            output.register_hook(lambda gradient: recorded.update(gradient=gradient.detach()))

    with network.parts[-1].register_forward_hook(record):
        network.zero_grad()
        logits = network(images)
    features = recorded["features"]
    if method == "scorecam":
        weights = scorecam_weights(network, features, images, labels)
    else:
        rows = []
        for index, logit in enumerate(logits[range(len(labels)), labels]):
            # The class score of one sample, back through the graph of the whole batch and of the whole trunk; the
            # gradient of all other samples is zero.
            network.zero_grad()
            logit.backward(retain_graph=True)
            gradient = recorded["gradient"][index]
            rows.append(WEIGHTS[method](gradient, features[index]))
        weights = torch.stack(rows)
    cam = (features * weights).sum(1).clamp(min=0)
    low, high = cam.amin((1, 2), keepdim=True), cam.amax((1, 2), keepdim=True)
    return (cam - low) / (high - low + EPSILON)


def gradcam_weights(gradient: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    return gradient.mean((1, 2), keepdim=True)


def gradcampp_weights(gradient: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Grad-CAM++ (Chattopadhay et al., 2018), eq. 19."""
    square, cube = gradient**2, gradient**3
    alpha = square / (2 * square + features.sum((1, 2), keepdim=True) * cube + EPSILON)
    alpha = torch.where(gradient != 0, alpha, torch.zeros_like(alpha))
    return (functional.relu(gradient) * alpha).sum((1, 2), keepdim=True)


WEIGHTS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "gradcam": gradcam_weights,
    "gradcam++": gradcampp_weights,
}


@torch.no_grad()
def scorecam_weights(
    network: Network, features: torch.Tensor, image: torch.Tensor, label: torch.Tensor
) -> torch.Tensor:
    """All masks of the one image are enlarged at once and scored 128 at a time; features `[1, C, h, w]`."""
    masks = functional.interpolate(features, image.shape[2:], mode="bilinear", align_corners=True)
    low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
    masks = (masks - low) / (high - low + EPSILON)
    probabilities = []
    for begin in range(0, masks.shape[1], MASKS_PER_PASS):
        mask = masks[:, begin : begin + MASKS_PER_PASS].transpose(0, 1)
        logits = network(normalise(denormalise(image) * mask))
        probabilities.append(logits.softmax(-1)[:, label])
    return torch.cat(probabilities).reshape(1, -1, 1, 1)


# --- engine/evaluation.py and engine/interpretable/ins_del.py: metrics ---


def score(network: Network, images: torch.Tensor, labels: torch.Tensor, maps: torch.Tensor) -> dict[str, np.ndarray]:
    """`single_recognition`: the image, the masked image, then insertion and deletion one after the other."""
    maps = functional.interpolate(maps[:, None], images.shape[2:], mode="bilinear")
    p = network(images).softmax(1)[range(len(labels)), labels].detach()
    network.zero_grad()
    o = network(normalise(denormalise(images) * maps)).softmax(1)[range(len(labels)), labels].detach()
    saliency = maps[:, 0].cpu().numpy()
    insertion = causal_curve(network, blur(images), images, saliency, labels)
    deletion = causal_curve(network, images, torch.zeros_like(images), saliency, labels)
    scores = {
        "AD": (p - o).clamp(min=0) / (p + EPSILON),
        "AG": (o - p).clamp(min=0) / (1 - p + EPSILON),
        "AI": (o - p).sign().clamp(min=0),
        "p": p,
        "o": o,
    }
    return {name: value.cpu().numpy() for name, value in scores.items()} | {
        "I": area_under_curve(insertion),
        "D": area_under_curve(deletion),
    }


def causal_curve(
    network: Network, start: torch.Tensor, finish: torch.Tensor, saliency: np.ndarray, labels: torch.Tensor
) -> np.ndarray:
    """`CausalMetric.evaluate`: `[steps + 1, B]`, a pass of the batch per step, then its next pixels are moved.

    The order is NumPy's default sort reversed: unstable, so arbitrary among equal saliencies.
    """
    count, _, height, width = start.shape
    step = ROWS_PER_STEP * width
    num_steps = (height * width + step - 1) // step
    order = np.flip(np.argsort(saliency.reshape(count, -1), axis=1), axis=1)
    rows = np.arange(count)[:, None]
    shape, finish = start.shape, finish.flatten(2)
    shown = start.clone()
    curve = np.zeros((num_steps + 1, count), np.float32)
    for number in range(num_steps + 1):
        probabilities = network(shown).softmax(-1).cpu().detach()
        curve[number] = probabilities[range(count), labels.cpu()].numpy()
        pixels = order[:, step * number : step * (number + 1)].copy()
        shown = shown.flatten(2)
        shown[rows, :, pixels] = finish[rows, :, pixels]
        shown = shown.view(shape)
    return curve


def blur(images: torch.Tensor) -> torch.Tensor:
    """5 x 5 Gaussian of sigma 5 as a dense 3 x 3 channel convolution, zeros outside."""
    dirac = np.zeros((5, 5))
    dirac[2, 2] = 1
    kernel = torch.zeros(3, 3, 5, 5)
    kernel[range(3), range(3)] = torch.tensor(scipy.ndimage.gaussian_filter(dirac, 5), dtype=torch.float32)
    return functional.conv2d(images, kernel.to(images.device), padding=2)


def area_under_curve(curve: np.ndarray) -> np.ndarray:
    return (curve.sum(0) - curve[0] / 2 - curve[-1] / 2) / (len(curve) - 1)
