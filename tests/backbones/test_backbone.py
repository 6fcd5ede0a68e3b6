"""The registry and what all backbones share: published sizes, taps, refused input."""

from flax import nnx
import jax
import numpy as np
import pytest
from tiers import slow_after

import castream_jax as castream
from castream_jax.backbones import abstract_backbone, get_architecture


def test_published_resnet20_gives_the_official_logits(golden, resnet20):
    stages = resnet20.stages(golden["images"].astype(np.float32) / 255)
    np.testing.assert_allclose(stages[-1], golden["final_features"].transpose(0, 2, 3, 1), rtol=0, atol=1e-4)
    np.testing.assert_allclose(resnet20.classify(stages[-1].mean((1, 2))), golden["gap/logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "parameters"),
    slow_after(
        12,
        [
            ("resnet18", 11_689_512),
            ("resnet34", 21_797_672),
            ("resnet50", 25_557_032),
            ("resnet101", 44_549_160),
            ("resnext50_32x4d", 25_028_904),
            ("wide_resnet50_2", 68_883_240),
            ("convnext_tiny", 28_589_128),
            ("convnext_small", 50_223_688),
            ("efficientnet_b0", 5_288_548),
            ("efficientnet_b1", 7_794_184),
            ("cifar_resnet20", 269_722),
            ("cifar_resnet110", 1_727_962),
            ("resnet152", 60_192_808),
            ("resnext101_32x8d", 88_791_336),
            ("wide_resnet101_2", 126_886_696),
            ("convnext_base", 88_591_464),
            ("convnext_large", 197_767_336),
            ("efficientnet_b2", 9_109_994),
            ("efficientnet_b3", 12_233_232),
            ("efficientnet_b4", 19_341_616),
            ("efficientnet_b5", 30_389_784),
            ("efficientnet_b6", 43_040_704),
            ("efficientnet_b7", 66_347_960),
        ],
    ),
)
def test_parameter_counts_are_the_published_ones(name: str, parameters: int):
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(abstract_backbone(name), nnx.Param))) == parameters


@pytest.mark.parametrize(
    ("name", "input_size", "num_classes"),
    [("efficientnet_b4", 380, 1000), ("convnext_tiny", 224, 1000), ("cifar_resnet20", 32, 10)],
)
def test_registry_knows_size_and_classes(name: str, input_size: int, num_classes: int):
    assert get_architecture(name)[1:] == (num_classes, input_size)
    assert abstract_backbone(name).num_classes == num_classes


@pytest.mark.parametrize(
    ("name", "taps", "dims"),
    [
        ("resnet50", None, (64, 256, 512, 1024, 2048)),
        ("resnet50", "stages", (64, 256, 512, 1024, 2048)),
        ("convnext_base", None, (128, 256, 512, 1024)),
        ("convnext_base", "official", (128, 256, 512, 1024)),
        ("convnext_base", "stages", (128, 128, 256, 512, 1024)),
        ("convnext_base", (6, 7), (1024, 1024)),
        ("efficientnet_b0", None, (32, 16, 24, 40, 80, 112, 192, 320, 1280)),
        ("efficientnet_b0", [2, 3, 5, 8], (24, 40, 112, 1280)),
    ],
)
def test_stage_dims_are_those_of_the_taps(name: str, taps, dims: tuple[int, ...]):
    backbone = abstract_backbone(name, taps=taps)
    assert backbone.stage_dims == dims
    graphdef, state = nnx.split(backbone)
    pixels = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    stages = jax.eval_shape(lambda state, pixels: nnx.merge(graphdef, state).stages(pixels), state, pixels)
    assert tuple(stage.shape[-1] for stage in stages) == dims
    assert stages[-1].shape[1:3] == (2, 2)


def test_taps_change_what_is_read_and_not_what_is_computed():
    pixels = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    every = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0)).stages(pixels)
    some = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0), taps=(1, 3)).stages(pixels)
    assert len(some) == 2
    np.testing.assert_array_equal(some[0], every[1])
    np.testing.assert_array_equal(some[1], every[3])


@pytest.mark.parametrize("taps", [(0, 1), (3, 1), (1, 1, 3), (-1, 3), (1, 4), ()])
def test_impossible_taps_are_refused(taps: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"cifar_resnet8's boundaries 0 … 3 and end with 3, .* pooled; got \["):
        abstract_backbone("cifar_resnet8", taps=taps)


@pytest.mark.usefixtures("unchecked_calls")
def test_unknown_taps_are_refused():
    with pytest.raises(ValueError, match="taps must be 'official', 'stages' or numbers of boundaries, got 'all'"):
        abstract_backbone("cifar_resnet8", taps="all")


@pytest.mark.parametrize("name", ["convnext_tiny", "efficientnet_b0", "resnext50_32x4d"])
def test_images_smaller_than_the_stride_are_refused(name: str):
    with pytest.raises(ValueError, match="at least 32 x 32 pixels, got 31 x 40"):
        abstract_backbone(name).stages(np.zeros((1, 31, 40, 3), np.float32))


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match="Unknown backbone 'resnet5O': did you mean resnet50"):
        castream.create_backbone("resnet5O", rngs=nnx.Rngs(0))


def test_pixels_that_do_not_fit_are_refused(small_model):
    with pytest.raises(ValueError, match="at least 4 x 4 pixels, got 2 x 9"):
        small_model(np.zeros((1, 2, 9, 3), np.float32))
    with pytest.raises(ValueError, match="floating point"):
        small_model(np.zeros((1, 32, 32, 3), np.uint8))
