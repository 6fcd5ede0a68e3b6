"""BatchNorm folded into the convolutions: the same logits, the same parameters; and what still keeps them apart."""

from pathlib import Path

from compiled import stages
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import slow_after

import castream_jax as castream
from castream_jax.backbones import fingerprint, save_torch_weights, torch_state_dict
from castream_jax.layers import BatchNorm


@pytest.fixture(
    scope="module", params=slow_after(1, ["cifar_resnet20", "resnet18", "efficientnet_b0", "convnext_tiny"])
)
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A file of parameters with statistics that are not those of a fresh BatchNorm."""
    backbone = castream.create_backbone(request.param, 10, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    state_dict = torch_state_dict(backbone)
    for name, value in state_dict.items():
        if name.endswith("running_mean"):
            state_dict[name] = rng.normal(0, 0.1, value.shape).astype(np.float32)
        elif name.endswith("running_var"):
            state_dict[name] = rng.uniform(0.5, 2, value.shape).astype(np.float32)
    castream.load_torch_state_dict(backbone, state_dict)
    path = tmp_path_factory.mktemp("weights") / "trunk.safetensors"
    save_torch_weights(backbone, path)
    return request.param, path


def logits(backbone: castream.Backbone, pixels: jax.Array) -> jax.Array:
    return backbone.classify(stages(backbone, pixels)[-1].mean((1, 2)))


def test_folded_and_apart_agree(weights):
    name, path = weights
    folded = castream.load_backbone(name, path, num_classes=10, fold_batch_norm=True)
    apart = castream.load_backbone(name, path, num_classes=10, fold_batch_norm=False)
    assert fingerprint(folded) == fingerprint(apart)
    for value, other in zip(torch_state_dict(folded).values(), torch_state_dict(apart).values(), strict=True):
        np.testing.assert_array_equal(value, other)
    pixels = jnp.asarray(np.random.default_rng(1).random((2, 64, 64, 3)), jnp.float32)
    expected = logits(apart, pixels)
    np.testing.assert_allclose(logits(folded, pixels), expected, rtol=0, atol=1e-5 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize(
    ("fold", "platform", "passes"),
    [(True, "cpu", 0), (False, "cuda", 3), (None, "cuda", 0), (None, "cpu", 3)],  # the stem, two of the first block
)
def test_a_folded_trunk_has_no_pass_over_what_convolutions_give(fold, platform, passes):
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    backbone.set_attributes(BatchNorm, folded=fold)
    lowered = jax.jit(backbone.stages).trace(jnp.zeros((7, 32, 32, 3))).lower(lowering_platforms=(platform,))
    products = [line for line in lowered.as_text().splitlines() if "multiply" in line and "<7x32x32x16xf32>" in line]
    assert len(products) == passes


def test_training_uses_the_batchs_own_statistics():
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    pixels = jnp.asarray(np.random.default_rng(1).random((4, 32, 32, 3)), jnp.float32)
    before = np.asarray(backbone.bn1.mean[...])  # pyright: ignore[reportAttributeAccessIssue]
    backbone.train()
    backbone.stages(pixels)
    after = np.asarray(backbone.bn1.mean[...])  # pyright: ignore[reportAttributeAccessIssue]
    convolved = backbone.conv1(backbone.normalise(pixels))  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    np.testing.assert_allclose(after, 0.9 * before + 0.1 * convolved.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)


def test_a_bfloat16_trunk_gives_float32_stages_near_those_of_float32(weights):
    name, path = weights
    reference = castream.load_backbone(name, path, num_classes=10)
    half = castream.load_backbone(name, path, num_classes=10, dtype="bfloat16")
    assert fingerprint(half) == fingerprint(reference)
    pixels = jnp.asarray(np.random.default_rng(1).random((2, 64, 64, 3)), jnp.float32)
    found = stages(half, pixels)
    assert {stage.dtype for stage in found} == {jnp.dtype(jnp.float32)}
    for stage, expected in zip(found, stages(reference, pixels), strict=True):
        error = float(jnp.linalg.norm(stage - expected) / jnp.linalg.norm(expected))
        assert 1e-5 < error < 0.05, "bfloat16 has 8 bits: neither the same numbers nor other ones"
    wide = [
        line
        for line in str(jax.make_jaxpr(half.stages)(pixels)).splitlines()
        if ("conv_general_dilated" in line or "dot_general" in line) and "f32[" in line.split(" = ")[0]
    ]
    assert not wide
    assert half.classify(found[-1].mean((1, 2))).dtype == jnp.float32


@pytest.mark.usefixtures("unchecked_calls")
def test_an_unknown_type_is_refused(resnet8_weights):
    with pytest.raises(ValueError, match=r"dtype must be one of .*bfloat16 for cifar_resnet8, got .float16"):
        castream.load_backbone("cifar_resnet8", resnet8_weights, dtype="float16")  # pyright: ignore[reportArgumentType]
