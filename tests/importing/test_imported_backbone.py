"""An imported trunk, without PyTorch: `make_tiny.py` made `tiny/`, and `tiny_golden.npz` of what PyTorch says."""

from pathlib import Path
import re
import shutil

from flax import nnx
import jax
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.backbones import (
    ImportedBackbone,
    OtherClassesError,
    fingerprint,
    load_torch_state_dict,
    torch_state_dict,
)
from castream_jax.backbones.pooled_stages import PooledStages
from castream_jax.evaluation import evaluate
from castream_jax.experiment.build import abstract_model, open_model
from castream_jax.experiment.config import open_config
from castream_jax.experiment.origins import config_in_place
from castream_jax.experiment.workdir import Workdir
from castream_jax.exporting.description import describe
from castream_jax.exporting.formats import FORMATS
from castream_jax.runtime.mesh import data_mesh, shard_batch
from castream_jax.training import train

HERE = Path(__file__).parent
TINY = HERE / "tiny"


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(1).random((3, 64, 64, 3), np.float32)


@pytest.fixture(scope="module")
def golden() -> np.ndarray:
    with np.load(HERE / "tiny_golden.npz") as arrays:
        return arrays["logits"]


@pytest.fixture(scope="module")
def tiny() -> castream.Backbone:
    return castream.load_backbone(TINY)


@pytest.fixture(scope="module")
def model(tiny) -> castream.Model:
    stream = castream.CrossAttentionStream(tiny.stage_dims, rngs=nnx.Rngs(0))
    return castream.Model(tiny, {"own": castream.NativePooling(), "ca": stream})


def test_logits_are_those_of_pytorch_for_any_number_of_images(model, pixels, golden):
    assert model.backbone.stage_dims == (8, 16, 16)
    for count in (3, 1):
        logits = jax.jit(lambda images: model(images)["own"])(pixels[:count])
        np.testing.assert_allclose(logits, golden[:count], atol=2e-6)


def test_bfloat16_is_near_float32(tiny, pixels, golden):
    half = castream.load_backbone("Tiny", TINY, dtype="bfloat16")
    assert {stage.dtype.name for stage in jax.eval_shape(half.stages, jnp.asarray(pixels))} == {"float32"}
    logits = jax.jit(lambda images: castream.Model(half, {"own": castream.NativePooling()})(images)["own"])(pixels)
    assert 1e-4 < np.abs(np.asarray(logits) - golden).max() < 0.05 * np.ptp(golden)


def test_a_type_without_programs_is_refused():
    with pytest.raises(ValueError, match="one of float32, bfloat16 for Tiny, got 'tensorfloat32'"):
        castream.load_backbone("Tiny", TINY, dtype="tensorfloat32")


def test_derivatives_are_those_of_differences(tiny, pixels):
    """Of the logits with respect to the pixels, a stage, and the representation."""
    images = jnp.asarray(pixels[:1])
    shapes = [stage.shape for stage in jax.eval_shape(tiny.stages, images)]

    @jax.jit
    def logits(images, offset):
        return tiny.classify(castream.NativePooling()(tiny.stages(jnp.asarray(images), {1: jnp.asarray(offset)}))[0])

    check_grads(logits, (images, jnp.zeros(shapes[1])), order=1, modes=["rev"], atol=2e-2, rtol=2e-2)


def test_images_split_over_devices_give_the_same_maps(model, pixels):
    images, labels = np.concatenate([pixels, pixels[:1]]), jnp.arange(4)
    methods = ("gradcam", "attention")
    split = shard_batch({"pixels": images}, data_mesh(jax.devices()[:4]))["pixels"]
    whole = castream.attribute(model, jnp.asarray(images), labels, methods=methods)
    for key, maps in castream.attribute(model, split, labels, methods=methods).items():
        np.testing.assert_allclose(maps, whole[key], atol=1e-5)


@pytest.mark.parametrize("format_", ["pretrained", "stablehlo"])
def test_a_model_comes_back_from_its_export(format_, model, pixels, tmp_path):
    FORMATS[format_](model, describe(model), tmp_path / "export")
    loaded = castream.load_pretrained(tmp_path / "export")
    assert fingerprint(loaded.backbone) == fingerprint(model.backbone)
    before, after = (jax.jit(lambda images, one=one: one(images))(pixels) for one in (model, loaded))
    for head, logits in after.items():
        np.testing.assert_array_equal(logits, before[head])


@pytest.mark.slow
def test_streams_are_trained_beside_it_and_evaluated_wherever_the_workdir_lies(tiny, tiny_config, tmp_path):
    """On four devices; the workdir has a copy of the trunk, without which it says what is gone."""
    trunk = Path(shutil.copytree(TINY, tmp_path / "trunk"))
    config = tiny_config(
        backbone={"weights": str(trunk)},
        data={"image_size": 64},
        evaluation={"max_images": 8, "methods": ("gradcam",), "sanity_images": 4},
    )
    train(config, tmp_path / "workdir")
    shutil.rmtree(trunk)
    moved = (tmp_path / "workdir").rename(tmp_path / "moved")
    saved = open_config(moved / "config.json")
    assert saved.backbone.name == "Tiny"
    summary = evaluate(saved, moved)
    assert set(summary["heads"]) == {"gap", "ca"}
    assert summary["trunk_fingerprint"] == fingerprint(tiny)
    saved.data.image_size = 32
    with pytest.raises(ValueError, match=r"set config\.data\.image_size=64"):
        open_model(config_in_place(saved, Workdir.at(moved)))
    (moved / "weights" / "trunk" / "arrays.safetensors").write_bytes(b"other")
    with pytest.raises(ValueError, match="is not what it was when the training started"):
        config_in_place(saved, Workdir.at(moved))


def test_a_random_classifier_changes_logits_and_no_map(pixels, golden):
    backbone = castream.load_backbone("Tiny", TINY)
    assert isinstance(backbone, ImportedBackbone)
    stages = backbone.stages(pixels)
    backbone.randomise_classifier(0)
    np.testing.assert_array_equal(backbone.stages(pixels)[-1], stages[-1])
    logits = backbone.classify(castream.NativePooling()(stages)[0])
    assert np.abs(np.asarray(logits) - golden).max() > 0.1 * np.ptp(golden)


def test_its_weights_have_no_names_of_torchvisions(tiny):
    for use in (torch_state_dict, lambda backbone: load_torch_state_dict(backbone, {})):
        with pytest.raises(ValueError, match=r"Tiny is an imported trunk, .* use save_backbone"):
            use(tiny)


def test_its_shapes_are_those_of_the_config_without_its_arrays(tiny_config):
    config = tiny_config(backbone={"weights": str(TINY)}, data={"image_size": 64})

    def shapes(model: castream.Model) -> dict:
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), nnx.to_pure_dict(nnx.state(model)))

    assert shapes(abstract_model(config)) == shapes(open_model(config))


def test_a_backbone_of_our_own_comes_back_from_its_folder(tmp_path):
    backbone = castream.create_backbone("cifar_resnet8", num_classes=3, rngs=nnx.Rngs(0), taps=(1, 3))
    castream.save_backbone(backbone, tmp_path / "own")
    loaded = castream.load_backbone(tmp_path / "own")
    assert (loaded.name, loaded.num_classes, loaded.taps) == ("cifar_resnet8", 3, (1, 3))
    assert fingerprint(loaded) == fingerprint(backbone)


def test_the_networks_own_vector_goes_through_jax_beside_the_stages():
    """The class token of a transformer: what `NativePooling` gives, and GAP does not."""
    stages = PooledStages((jnp.ones((2, 4, 4, 3)),), jnp.full((2, 3), 5.0))
    doubled = jax.jit(lambda stages: jax.tree.map(lambda x: 2 * x, stages))(stages)
    assert isinstance(doubled, PooledStages)
    assert len(doubled) == 1
    np.testing.assert_array_equal(castream.NativePooling()(doubled)[0], np.full((2, 3), 10))
    np.testing.assert_array_equal(castream.GlobalAveragePooling()(doubled)[0], np.full((2, 3), 2))


def test_what_it_is_not_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match=re.escape("Tiny was imported for images of 64 x 64 pixels, got 32 x 64")):
        tiny.stages(jnp.zeros((1, 32, 64, 3)))
    with pytest.raises(ValueError, match="holds the imported Tiny, which is not resnet50"):
        castream.load_backbone("resnet50", TINY)
    with pytest.raises(OtherClassesError, match="with 10 classes, not 11"):
        castream.load_backbone("imported", TINY, num_classes=11)
    with pytest.raises(ValueError, match="needs weights"):
        castream.load_backbone("resnet50")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(
        FileExistsError, match=r"holds what this import would not write \(thesis.tex\), .* an earlier imp"
    ):
        castream.save_backbone(tiny, tmp_path / "full")
    damaged = Path(shutil.copytree(TINY, tmp_path / "damaged"))
    (damaged / "classify.stablehlo").write_bytes(b"no program")
    with pytest.raises(ValueError, match=r"classify\.stablehlo is damaged"):
        castream.load_backbone(damaged)
    (damaged / "classify.stablehlo").unlink()
    with pytest.raises(ValueError, match=r"classify\.stablehlo is missing"):
        castream.load_backbone(damaged)
