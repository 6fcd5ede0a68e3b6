"""Parity with torchvision, stage by stage, on weights that NumPy alone can make."""

import importlib.util
import json
from pathlib import Path

from flax import nnx
import jax
import numpy as np
import pytest

import castream_jax as castream


@pytest.fixture(scope="module", params=["resnet18", "resnet50"])
def torchvision(request: pytest.FixtureRequest, shared: Path):
    """(backbone with the reference weights, its stages, torchvision's numbers)."""
    name = request.param
    folder = shared / "golden"
    spec = importlib.util.spec_from_file_location("reference_weights", folder / "reference_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    manifest = json.loads((folder / "torchvision_manifests.json").read_text())[name]
    backbone = castream.create_backbone(name, rngs=nnx.Rngs(0))
    castream.load_torch_state_dict(backbone, module.reference_state_dict(manifest))
    with np.load(folder / "torchvision_logits.npz") as arrays:
        expected = {key.removeprefix(f"{name}/"): arrays[key] for key in arrays if key.startswith(f"{name}/")}
        pixels = arrays["pixels"].astype(np.float32) / 255
    return backbone, jax.jit(backbone.stages)(pixels), expected


def test_stage_means_equal_torchvisions(torchvision):
    # 1e-4 relative to the stage's largest mean: float32 sums in another order; a wrong padding moves them by 1e-2.
    backbone, stages, expected = torchvision
    assert tuple(stage.shape[-1] for stage in stages) == backbone.stage_dims
    for number, stage in enumerate(stages):
        reference = expected[f"tap{number}_mean"]
        error = np.abs(np.asarray(stage.mean((1, 2))) - reference).max() / np.abs(reference).max()
        assert error < 1e-4, f"S{number} is off by {error:.1e}"


def test_logits_equal_torchvisions(torchvision):
    backbone, stages, expected = torchvision
    logits = backbone.classify(stages[-1].mean((1, 2)))
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=1e-3)


def test_published_resnet20_gives_the_official_logits(golden, resnet20):
    stages = resnet20.stages(golden["images"].astype(np.float32) / 255)
    np.testing.assert_allclose(stages[-1], golden["final_features"].transpose(0, 2, 3, 1), rtol=0, atol=1e-4)
    np.testing.assert_allclose(resnet20.classify(stages[-1].mean((1, 2))), golden["gap/logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        ("cifar_resnet20", 269_722),
        ("cifar_resnet110", 1_727_962),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, parameters: int):
    backbone = nnx.eval_shape(lambda: castream.create_backbone(name, rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(backbone, nnx.Param))) == parameters


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match="Unknown backbone 'resnet5O': did you mean resnet50"):
        castream.create_backbone("resnet5O", rngs=nnx.Rngs(0))


def test_pixels_that_do_not_fit_are_refused(small_model):
    with pytest.raises(ValueError, match="at least 4 x 4 pixels, got 2 x 9"):
        small_model(np.zeros((1, 2, 9, 3), np.float32))
    with pytest.raises(ValueError, match="floating point"):
        small_model(np.zeros((1, 32, 32, 3), np.uint8))
