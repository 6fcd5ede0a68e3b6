"""Exported models come back to the same bits."""

from pathlib import Path

import chex
import compiled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.backbones import fingerprint, save_torch_weights


@pytest.fixture
def model() -> castream.Model:
    backbone = castream.create_backbone("cifar_resnet8", 7, rngs=nnx.Rngs(1), taps=(0, 2, 3))
    dims = backbone.stage_dims
    heads = {
        "gap": castream.GlobalAveragePooling(),
        "wide": castream.CrossAttentionStream(dims, num_heads=2, block="proj_ca", rngs=nnx.Rngs(2)),
        "late": castream.CrossAttentionStream(dims, start_stage=2, num_queries=7, use_bias=False, rngs=nnx.Rngs(3)),
    }
    return castream.Model(backbone, heads)


def test_a_model_comes_back_to_the_same_bits(model, tmp_path: Path):
    castream.save_pretrained(model, tmp_path / "export")
    castream.save_pretrained(model, tmp_path / "export")  # replaces its own export
    loaded = castream.load_pretrained(tmp_path / "export")
    pixels = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    chex.assert_trees_all_equal(compiled.logits(loaded, pixels), compiled.logits(model, pixels))
    assert loaded.backbone.taps == (0, 2, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    trunk = castream.load_backbone("cifar_resnet8", tmp_path / "export", num_classes=7)
    assert fingerprint(trunk) == fingerprint(model.backbone)


def test_gap_alone_needs_no_streams(model, tmp_path: Path):
    gap = castream.Model(model.backbone, {"gap": castream.GlobalAveragePooling()})
    castream.save_pretrained(gap, tmp_path / "export")
    assert list(castream.load_pretrained(tmp_path / "export").heads) == ["gap"]


def test_another_trunk_is_noticed(model, tmp_path: Path):
    castream.save_pretrained(model, tmp_path / "export")
    other = castream.create_backbone("cifar_resnet8", 7, rngs=nnx.Rngs(9))
    save_torch_weights(other, tmp_path / "export" / "trunk.safetensors")
    with pytest.raises(ValueError, match="is not the one its streams were trained beside"):
        castream.load_pretrained(tmp_path / "export")


def test_foreign_directories_are_left_alone(model, tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(FileExistsError, match=r"holds what this export would not write \(thesis\.tex\)"):
        castream.save_pretrained(model, tmp_path)
    assert (tmp_path / "thesis.tex").exists()
    with pytest.raises(FileNotFoundError, match=r"there is no model\.json"):
        castream.load_pretrained(tmp_path)


def test_parameters_of_another_type_are_refused_before_anything_is_written(tmp_path: Path):
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling()})
    nnx.update(model, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), nnx.state(model, nnx.Param)))
    with pytest.raises(ValueError, match=r"exported in float32, and .* is bfloat16: convert them; load_backbone"):
        castream.save_pretrained(model, tmp_path / "export")
    assert not (tmp_path / "export").exists()
