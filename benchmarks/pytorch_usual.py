"""The same evaluation with the usual tools: pytorch-grad-cam's maps and drop of confidence, RISE's curves.

Both are used as their documentation shows: a trunk per head, gradients through the whole network, Score-CAM's masks in
normalised space in batches of the library's own; insertion and deletion of one image, a pass per step (`single_run`),
rendered anew. Their definitions differ from those of the official procedure, so that only the time is compared: the
number of steps is the same.

Import `pytorch_models` first: it makes torchvision importable, which pytorch-grad-cam needs.
"""

# PyTorch is for comparison, where it is installed.
# pyright: reportMissingImports=false

from collections.abc import Sequence

import numpy as np
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, ScoreCAM
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_models import Network
from pytorch_official import ROWS_PER_STEP, Results, area_under_curve, blur, causal_curve
import torch

METHODS = {"gradcam": GradCAM, "gradcam++": GradCAMPlusPlus, "scorecam": ScoreCAM}
assert ROWS_PER_STEP == 8  # of `causal_curve`, which takes one image as RISE does


def evaluate(
    network: Network, images: torch.Tensor, labels: torch.Tensor, methods: Sequence[str], batch: int
) -> Results:
    """Maps and metrics per image, `{method: {"map", "AD", "AI", "I", "D"}}`, of normalised images under one head."""
    results = {}
    targets = [ClassifierOutputTarget(int(label)) for label in labels]
    for method in methods:
        saliency_maps = maps(network, images, labels, method, batch)
        values = {
            "AD": DropInConfidence()(images, saliency_maps, targets, network),
            "AI": IncreaseInConfidence()(images, saliency_maps, targets, network),
        }
        with torch.no_grad():
            for number, one in enumerate(saliency_maps):
                image, label, saliency = images[number, None], labels[number, None], one[None]
                curves = {
                    "I": causal_curve(network, blur(image), image, saliency, label),
                    "D": causal_curve(network, image, torch.zeros_like(image), saliency, label),
                }
                for metric, curve in curves.items():
                    values.setdefault(metric, []).append(area_under_curve(curve)[0])
        results[method] = {"map": saliency_maps, **{name: np.asarray(value) for name, value in values.items()}}
    return results


def maps(network: Network, images: torch.Tensor, labels: torch.Tensor, method: str, batch: int) -> np.ndarray:
    """Saliency maps `[B, H, W]`, Score-CAM's masks `batch` at a time."""
    targets = [ClassifierOutputTarget(int(label)) for label in labels]
    with METHODS[method](model=network, target_layers=[[*network.parts[-1].children()][-1]]) as cam:
        cam.batch_size = batch
        return cam(input_tensor=images, targets=targets)
