"""Parity with torchvision, boundary by boundary, on weights that NumPy alone can make."""

import json
from pathlib import Path
import re
from types import ModuleType

import chex
import compiled
import numpy as np
import pytest
from tiers import slow_after

import castream_jax as castream
from castream_jax.backbones import abstract_backbone, torch_state_dict
from castream_jax.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD

TORCHVISION_NAMES = [name for name in castream.backbone_names() if not name.startswith(("cifar", "efficientnet_lite"))]

StateDict = dict[str, np.ndarray]


def boundaries_and_logits(
    name: str, count: int, state_dict: StateDict, pixels: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """Means over positions at each of the `count` boundaries, and logits under GAP."""
    backbone = abstract_backbone(name, taps=range(count))
    castream.load_torch_state_dict(backbone, state_dict)
    means, logits = compiled.means_and_logits(backbone, pixels)
    assert tuple(mean.shape[-1] for mean in means) == backbone.boundary_dims
    return [np.asarray(mean) for mean in means], np.asarray(logits)


def assert_equal(means: list[np.ndarray], logits: np.ndarray, expected: list[np.ndarray], expected_logits: np.ndarray):
    # 1e-4 of the boundary's largest mean: float32 sums in another order; a wrong padding moves them by 1e-2.
    assert len(means) == len(expected)
    for number, (mean, reference) in enumerate(zip(means, expected, strict=True)):
        error = np.abs(mean - reference).max() / np.abs(reference).max()
        assert error < 1e-4, f"boundary {number} is off by {error:.1e}"
    np.testing.assert_allclose(logits, expected_logits, rtol=0, atol=max(1e-3, 2e-4 * expected_logits.std()))


@pytest.mark.parametrize("name", slow_after(1, ["resnet18", "resnet50", "convnext_tiny", "convnext_base"]))
def test_stored_numbers_of_photographs(name: str, shared: Path, reference_state_dict):
    manifest = json.loads((shared / "golden" / "torchvision_manifests.json").read_text())[name]
    with np.load(shared / "golden" / "torchvision_logits.npz") as arrays:
        count = sum(key.startswith(f"{name}/tap") for key in arrays)
        expected = [arrays[f"{name}/tap{number}_mean"] for number in range(count)]
        logits, pixels = arrays[f"{name}/logits"], arrays["pixels"].astype(np.float32) / 255
    assert_equal(*boundaries_and_logits(name, count, reference_state_dict(manifest), pixels), expected, logits)


def test_weights_come_back_as_they_went_in(shared: Path, reference_state_dict):
    manifest = json.loads((shared / "golden" / "torchvision_manifests.json").read_text())["convnext_tiny"]
    weights = reference_state_dict(manifest)
    backbone = abstract_backbone("convnext_tiny")
    castream.load_torch_state_dict(backbone, weights)
    chex.assert_trees_all_equal(torch_state_dict(backbone), weights)
    name = "features.1.0.layer_scale"
    with pytest.raises(ValueError, match=rf"misshaped: {name} is \[96\], should be \[96, 1, 1\]"):
        castream.load_torch_state_dict(backbone, {**weights, name: weights[name].ravel()})


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION_NAMES)
def test_torchvision_itself(name: str, torchvision: ModuleType, reference_state_dict):
    import torch  # pyright: ignore[reportMissingImports]  # after importorskip

    with torch.device("meta"):  # names and shapes only
        model = getattr(torchvision.models, name)().eval()
    state_dict = reference_state_dict({key: tuple(value.shape) for key, value in model.state_dict().items()})
    for key in state_dict:
        # The reference weights make the features of a deep EfficientNet grow until one rounding error decides its
        # squeeze-and-excitation gates (B7: float32 and float64 of PyTorch differ by twice the logits' deviation).
        if re.fullmatch(r"features\.[1-7]\.\d+\.block\.[23]\.1\.weight", key):
            state_dict[key] *= 0.3
    model.load_state_dict({key: torch.tensor(value) for key, value in state_dict.items()}, assign=True)

    # Sides that are odd after the third and fourth halving, and differ: padding and order of the axes show.
    pixels = np.random.default_rng(0).random((2, 72, 88, 3), np.float32)
    inputs = (pixels - np.asarray(IMAGENET_MEAN, np.float32)) / np.asarray(IMAGENET_STD, np.float32)
    parts = (
        [model.maxpool, model.layer1, model.layer2, model.layer3, model.layer4]
        if "resne" in name
        else list(model.features)
    )
    expected = []
    for part in parts:
        part.register_forward_hook(lambda _module, _inputs, output: expected.append(output.mean((2, 3)).numpy()))
    with torch.no_grad():
        logits = model(torch.tensor(inputs).permute(0, 3, 1, 2)).numpy()
    assert_equal(*boundaries_and_logits(name, len(parts), state_dict, pixels), expected, logits)
