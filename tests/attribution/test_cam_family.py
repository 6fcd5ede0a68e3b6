"""CAM, Grad-CAM and its family: their equations in float64 on derivatives that are taken another way."""

# pyright: reportAttributeAccessIssue=false

from collections.abc import Mapping
import dataclasses
import functools
from types import ModuleType

import compiled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import slow_after

import castream_jax as castream
from castream_jax.attribution import METHODS, Inputs
from castream_jax.backbones import abstract_backbone
from castream_jax.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD
from castream_jax.backbones.convnext import ConvNext

PROTOCOL = castream.get_protocol("castream")
FAMILY = ("gradcam", "gradcam++", "xgradcam", "hirescam", "layercam")
LABELS = np.array([3, 1, 4, 1])


def family(features: np.ndarray, gradient: np.ndarray) -> dict[str, np.ndarray]:
    """Maps `[B, h, w]` in [0, 1] by each method's equation, of features and gradient `[B, h, w, d]`."""
    F, g = np.float64(features), np.float64(gradient)
    positions = (1, 2)
    sums = F.sum(positions, keepdims=True)
    alpha = np.divide(g**2, 2 * g**2 + sums * g**3, out=np.zeros_like(g), where=g != 0)
    weights = {
        "gradcam": g.mean(positions, keepdims=True),
        "gradcam++": (alpha * np.maximum(g, 0)).sum(positions, keepdims=True),
        "xgradcam": (F / np.where(sums == 0, 1, sums) * g).sum(positions, keepdims=True),
        "hirescam": g,
        "layercam": np.maximum(g, 0),
    }
    return {method: scaled(np.maximum((w * F).sum(-1), 0)) for method, w in weights.items()}


def scaled(scores: np.ndarray) -> np.ndarray:
    """Each map to [0, 1]."""
    low, high = scores.min((1, 2), keepdims=True), scores.max((1, 2), keepdims=True)
    return (scores - low) / np.where(high > low, high - low, 1)


@pytest.fixture(scope="module")
def pixels() -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).random((4, 64, 96, 3)), jnp.float32)


def with_heads(backbone: castream.Backbone) -> castream.Model:
    """GAP, a stream, and a class-specific one with projections and several attention heads from S1 on."""
    dims, classes = backbone.stage_dims, backbone.num_classes
    class_specific = castream.CrossAttentionStream(dims, 1, "proj_ca", classes, num_heads=2, rngs=nnx.Rngs(3))
    # Different enough that the class's own token is seen to be the one used.
    class_specific.cls_token.set_value(10 * class_specific.cls_token[...])
    heads = {
        "gap": castream.GlobalAveragePooling(),
        "ca": castream.CrossAttentionStream(dims, rngs=nnx.Rngs(2)),
        "per_class": class_specific,
    }
    return castream.Model(backbone, heads)


@functools.cache
def small_resnet() -> castream.Model:
    return with_heads(castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(1)))


@functools.cache
def small_convnext() -> castream.Model:
    backbone = ConvNext("small", (8, 16, 16, 32), (1, 1, 1, 1), num_classes=10, rngs=nnx.Rngs(1))
    # Initial weights are so small that nothing depends on anything.
    for path, parameter in nnx.iter_graph(backbone):
        if isinstance(parameter, nnx.Param) and path[-1] in ("kernel", "layer_scale"):
            parameter.set_value((30.0 if path[-1] == "kernel" else 3e5) * parameter[...])
    return with_heads(backbone)


def walk(backbone: castream.Backbone, pixels: jax.Array, boundary: int, offset: jax.Array) -> list[jax.Array]:
    """Every boundary's features, part by part, `offset` added at one of them."""
    x, boundaries = backbone.normalise(pixels), []
    for number, part in enumerate(backbone._parts()):
        x = part(x) + (offset if number == boundary else 0)
        boundaries.append(x)
    return boundaries


def moved_at_stage(model: castream.Model, pixels: jax.Array, offset: jax.Array, stage: int):
    """The stages, `offset` added at one of them inside the trunk, and that stage."""
    boundaries = walk(model.backbone, pixels, model.backbone.taps[stage], offset)
    stages = [boundaries[tap] for tap in model.backbone.taps]
    return stages, stages[stage]


def moved_in_last_block(model: castream.Model, pixels: jax.Array, offset: jax.Array):
    """The stages, `offset` added to what the last ConvNeXt block's second point-wise layer gives, and what it gives."""
    block = model.backbone.features[7][-1].block
    pointwise, outputs = block[5], []

    def moved(x):
        outputs.append(pointwise(x) + offset)
        return outputs[0]

    block[5] = moved
    return model.backbone.stages(pixels), outputs[0]


def autodiff(model: castream.Model, pixels: jax.Array, moved) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The target features, and by head the class logits' derivative with respect to an offset there.

    The whole model is differentiated; class-specific streams start from GAP's unmoved prediction.
    """
    graphdef, state = nnx.split(model)

    @jax.jit
    def run(state, pixels):
        query = nnx.merge(graphdef, state)(pixels)["gap"].argmax(-1)

        def logit(offset, head):
            copy = nnx.merge(graphdef, state)
            stages, target = moved(copy, pixels, offset)
            logits = copy.backbone.classify(copy.heads[head](stages, query)[0])
            return logits[jnp.arange(len(LABELS)), LABELS].sum(), target

        shape = jax.eval_shape(lambda: moved(nnx.merge(graphdef, state), pixels, jnp.zeros(()))[1]).shape
        derivatives = {head: jax.grad(logit, has_aux=True)(jnp.zeros(shape), head) for head in model.heads}
        return derivatives["gap"][1], {head: gradient for head, (gradient, _) in derivatives.items()}

    return run(state, pixels)


CASES = {
    "resnet": (small_resnet, {}, functools.partial(moved_at_stage, stage=-1)),
    "resnet, S1": (small_resnet, {"target_stage": 1}, functools.partial(moved_at_stage, stage=1)),
    "convnext": (small_convnext, {}, moved_in_last_block),
    "convnext, pooled": (
        small_convnext,
        {"target_features": "pooled"},
        functools.partial(moved_at_stage, stage=-1),
    ),
    "convnext, S1": (small_convnext, {"target_stage": 1}, functools.partial(moved_at_stage, stage=1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_family_equals_its_equations_on_autodiff_through_the_trunk(case: str, pixels):
    build, choices, moved = CASES[case]
    model = build()
    maps = castream.attribute(model, pixels, LABELS, FAMILY, dataclasses.replace(PROTOCOL, **choices))
    features, gradients = autodiff(model, pixels, moved)
    assert len(maps) == len(FAMILY) * len(gradients) == len(FAMILY) * 3
    for head, gradient in gradients.items():
        for method, expected in family(features, gradient).items():
            assert expected.std((1, 2)).max() > 0.05  # the comparison must not be of zeros
            # Of features with both signs, Grad-CAM++'s denominator comes near 0 and enlarges float32's rounding.
            atol = 5e-3 if method == "gradcam++" and build is small_convnext else 1e-4
            np.testing.assert_allclose(maps[head, method], expected, rtol=0, atol=atol, err_msg=f"{head} {method}")


def test_family_differs_where_the_gradient_varies_over_positions(pixels):
    maps = castream.attribute(small_resnet(), pixels, LABELS, FAMILY)
    for other in ("xgradcam", "hirescam"):
        np.testing.assert_allclose(maps["gap", "gradcam"], maps["gap", other], rtol=0, atol=1e-5)
        assert np.abs(maps["ca", "gradcam"] - maps["ca", other]).max() > 0.01


@pytest.mark.parametrize("kind", ["a*g3", "sum(a*g3)"])
def test_gradcampp_leaves_out_positions_without_a_denominator(kind: str):
    """Closed form on two channels: a denominator that is 0 everywhere, and a gradient at (0, 0) alone."""
    features = np.zeros((1, 2, 2, 2), np.float32)
    features[0, ..., 0] = [[-1, 0], [-1, 0]]  # sums to -2: with g = 1 the denominator is 2 - 2 = 0
    features[0, ..., 1] = [[0, 1], [2, 3]]
    gradient = np.zeros((1, 2, 2, 2), np.float32)
    gradient[0, ..., 0] = 1
    gradient[0, 0, 0, 1] = 0.5
    protocol = dataclasses.replace(PROTOCOL, gradcampp_sum=kind)
    scores = METHODS["gradcam++"].function(GivenInputs(features, gradient, protocol))["gap"]
    third = 6 * 0.5**3 if kind == "a*g3" else 0
    np.testing.assert_allclose(scores, 0.25 / (0.5 + third) * 0.5 * features[..., 1], rtol=1e-6)


class GivenInputs(Inputs):
    """Features and gradient that a test makes up; no model."""

    def __init__(self, features: np.ndarray, gradient: np.ndarray, protocol: castream.Protocol):
        self.model = castream.Model(
            castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0)), {"gap": castream.GlobalAveragePooling()}
        )
        self.features, self.protocol, self._gradient = jnp.asarray(features), protocol, jnp.asarray(gradient)

    def gradient(self, head: str) -> jax.Array:
        return self._gradient


def test_sum_of_products_equals_its_equation(pixels):
    """torch-cam's denominator, under streams, where it is another than eq. 19's."""
    protocol = dataclasses.replace(PROTOCOL, gradcampp_sum="sum(a*g3)")
    model = small_resnet()
    maps = castream.attribute(model, pixels, LABELS, ("gradcam++",), protocol)
    features, gradients = autodiff(model, pixels, functools.partial(moved_at_stage, stage=-1))
    for head, gradient in gradients.items():
        F, g = np.float64(features), np.float64(gradient)
        denominator = 2 * g**2 + (F * g**3).sum((1, 2), keepdims=True)
        alpha = np.divide(g**2, denominator, out=np.zeros_like(g), where=g != 0)
        weights = (alpha * np.maximum(g, 0)).sum((1, 2), keepdims=True)
        expected = scaled(np.maximum((weights * F).sum(-1), 0))
        np.testing.assert_allclose(maps[head, "gradcam++"], expected, rtol=0, atol=1e-4, err_msg=head)


# --- CAM ---


def test_cam_is_the_linear_layers_row_and_gradcam_its_positive_part(pixels):
    model = small_resnet()
    maps = castream.attribute(model, pixels, LABELS, ("cam", "gradcam"))
    assert ("ca", "cam") not in maps
    rows = np.asarray(model.backbone.linear.kernel[...], np.float64).T[LABELS]
    scores = np.einsum("bhwd,bd->bhw", np.float64(compiled.stages(model.backbone, pixels)[-1]), rows)
    assert (scores < 0).any()
    np.testing.assert_allclose(maps["gap", "cam"], scaled(scores), rtol=0, atol=1e-5)
    np.testing.assert_allclose(maps["gap", "gradcam"], scaled(np.maximum(scores, 0)), rtol=0, atol=1e-5)


def test_cam_is_refused_where_it_is_not_defined(pixels):
    def refused(model, message, **choices):
        with pytest.raises(ValueError, match=message):
            castream.attribute(model, pixels, LABELS, ("cam",), dataclasses.replace(PROTOCOL, **choices))

    model = small_resnet()
    refused(model, "those of the last stage, and the protocol has target_stage=1: use gradcam", target_stage=1)
    refused(castream.Model(model.backbone, {"ca": model.heads["ca"]}), "with GlobalAveragePooling among its heads")


@pytest.mark.slow
def test_cam_is_refused_where_the_classifier_is_not_linear(pixels):
    with pytest.raises(ValueError, match="linear classifier right after GAP, and that of small is not linear: use"):
        castream.attribute(small_convnext(), pixels, LABELS, ("cam",))


# --- targets ---


@pytest.mark.parametrize(("build", "last"), slow_after(1, [(small_resnet, 3), (small_convnext, 3)]))
def test_a_target_stage_that_the_backbone_lacks_is_refused(build, last: int, pixels):
    for stage in (-1, last + 1):
        message = rf"protocol has target_stage={stage}: the stages of \w+ are 0 … {last}\."
        with pytest.raises(ValueError, match=message):
            castream.attribute(build(), pixels, LABELS, protocol=dataclasses.replace(PROTOCOL, target_stage=stage))


@pytest.mark.parametrize("build", slow_after(1, [small_resnet, small_convnext]))
def test_stages_take_offsets_and_targets_complete_them(build, pixels):
    graphdef, state = nnx.split(build().backbone)
    taps = build().backbone.taps

    @jax.jit
    def run(state):
        backbone = nnx.merge(graphdef, state)
        stages, target, complete = backbone.stages_and_target(pixels)
        offset = jnp.sin(jnp.arange(stages[1].size)).reshape(stages[1].shape)
        moved, expected = backbone.stages(pixels, {1: offset}), walk(backbone, pixels, taps[1], offset)
        return stages, complete(target), complete(target + 1), moved, expected

    stages, completed, completed_plus_one, moved, expected = run(state)
    for tap, stage in zip(taps, moved, strict=True):
        np.testing.assert_allclose(stage, expected[tap], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moved[0], stages[0], rtol=1e-5, atol=1e-5)
    assert float(jnp.abs(moved[-1] - stages[-1]).max()) > 1e-3
    np.testing.assert_allclose(completed, stages[-1], rtol=1e-5, atol=1e-5)
    # One more in the target is one more in a ResNet's last stage, and the layer scale in a ConvNeXt's.
    backbone = build().backbone
    scale = backbone.features[7][-1].layer_scale[...] if isinstance(backbone, ConvNext) else jnp.ones((1, 1, 64))
    difference = completed_plus_one - stages[-1]
    np.testing.assert_allclose(difference, jnp.broadcast_to(scale[None], difference.shape), rtol=0, atol=1e-4)


# name of the torchvision model and choices -> the module whose output is the target, whether it is channels-last
TORCHVISION = {
    "resnet18": ({}, "layer4", False),
    "resnet18, S2": ({"target_stage": 2}, "layer2", False),
    "convnext_tiny": ({}, "features.7.2.block.5", True),
    "convnext_tiny, S1": ({"target_stage": 1}, "features.2", False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny"])
def test_family_equals_its_equations_on_pytorchs_autograd(name: str, torchvision: ModuleType, reference_state_dict):
    """Under GAP, on torchvision's own modules with hooks, 64 x 96 pixels."""
    import torch  # pyright: ignore[reportMissingImports]  # after importorskip

    network = getattr(torchvision.models, name)().eval()
    state_dict = reference_state_dict({key: tuple(value.shape) for key, value in network.state_dict().items()})
    network.load_state_dict({key: torch.tensor(value) for key, value in state_dict.items()})
    pixels = np.random.default_rng(0).random((2, 64, 96, 3), np.float32)
    labels = np.array([17, 401])
    inputs = (pixels - np.asarray(IMAGENET_MEAN, np.float32)) / np.asarray(IMAGENET_STD, np.float32)
    cases: Mapping = {case: of_case for case, of_case in TORCHVISION.items() if case.split(",")[0] == name}
    outputs = {}
    for _, module, _ in cases.values():
        network.get_submodule(module).register_forward_hook(
            lambda _module, _inputs, output, module=module: outputs.update({module: output})
        )
    logits = network(torch.tensor(inputs).permute(0, 3, 1, 2))[[0, 1], labels]
    gradients = dict(zip(outputs, torch.autograd.grad(logits.sum(), list(outputs.values())), strict=True))

    backbone = abstract_backbone(name)
    castream.load_torch_state_dict(backbone, state_dict)
    model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling()})
    for case, (choices, module, channels_last) in cases.items():
        axes = (0, 1, 2, 3) if channels_last else (0, 2, 3, 1)
        tensors = (outputs[module], gradients[module])
        expected = family(*(tensor.detach().permute(axes).numpy() for tensor in tensors))
        maps = castream.attribute(model, pixels, labels, FAMILY, dataclasses.replace(PROTOCOL, **choices))
        for method, reference in expected.items():
            # float32 through 18 or 59 layers, in two libraries
            np.testing.assert_allclose(maps["gap", method], reference, rtol=0, atol=2e-3, err_msg=f"{case} {method}")
