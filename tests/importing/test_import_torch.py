"""`castream.import_torch` beside PyTorch: logits, maps, and the derivatives that Grad-CAM needs, by autograd."""

import importlib.util
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.attribution.inputs import Inputs
from castream_jax.attribution.methods import parse_method
from castream_jax.importing.found_taps import found_taps
from castream_jax.importing.named_network import open_network
from castream_jax.importing.timm_networks import open_timm

pytestmark = pytest.mark.slow
SIZE = 32
NORMALISED = {"image_size": SIZE, "mean": (0.5,) * 3, "std": (0.5,) * 3}


@pytest.fixture(scope="module")
def timm(torch: ModuleType) -> ModuleType:
    if importlib.util.find_spec("torchax") is None:  # importing it is what `torchax_operations` is careful about
        pytest.skip("the extra castream_jax[torch] is not installed")
    try:
        return open_timm()
    except ImportError as error:
        pytest.skip(str(error))


def gradient_by_torch(torch, module, inputs, where: str, label: int, prefix: int) -> tuple[np.ndarray, np.ndarray]:
    """The output of a sub-module, and the derivative of one logit of each image with respect to it."""
    found = {}

    def keep(_, __, output):
        output.retain_grad()
        found["map"] = output

    handle = dict(module.named_modules())[where].register_forward_hook(keep)
    module(torch.from_numpy(np.array(inputs.transpose(0, 3, 1, 2))).requires_grad_())[:, label].sum().backward()
    handle.remove()
    values = [value.detach().numpy() for value in (found["map"], found["map"].grad)]
    if values[0].ndim == 3:  # patches, in a square
        side = int((values[0].shape[1] - prefix) ** 0.5)
        return tuple(value[:, prefix:].reshape(len(value), side, side, -1) for value in values)
    return tuple(value.transpose(0, 2, 3, 1) for value in values)


@pytest.mark.parametrize(
    ("name", "options", "target", "stage"),
    [
        (
            "vit_tiny_patch16_224",
            {"img_size": SIZE, "patch_size": 8, "depth": 2, "embed_dim": 48},
            "blocks.1.norm1",
            None,
        ),
        ("resnet10t", {}, "layer2", 2),
    ],
)
def test_maps_and_gradients_are_those_of_pytorch(name, options, target, stage, timm, torch):
    torch.manual_seed(0)
    module = timm.create_model(name, pretrained=False, num_classes=7, **options).eval()
    backbone = castream.import_torch(module, image_size=SIZE)
    model = castream.Model(backbone, {"own": castream.NativePooling()})
    pixels = np.random.default_rng(0).random((2, SIZE, SIZE, 3), np.float32)
    protocol = castream.Protocol(**{**vars(castream.get_protocol("castream")), "target_stage": stage})

    @jax.jit
    def ours(pixels):
        inputs = Inputs(model, pixels, jnp.array([3, 3]), protocol, 2)
        return inputs.logits["own"], inputs.features, inputs.gradient("own")

    logits, features, gradient = ours(pixels)
    prefix = getattr(module, "num_prefix_tokens", 0)
    normalised = np.asarray(backbone.normalise(jnp.asarray(pixels)))
    their_features, their_gradient = gradient_by_torch(torch, module, normalised, target, 3, prefix)
    with torch.no_grad():
        their_logits = module(torch.from_numpy(normalised.transpose(0, 3, 1, 2).copy())).numpy()
    for got, expected in ((logits, their_logits), (features, their_features), (gradient, their_gradient)):
        np.testing.assert_allclose(got, expected, atol=1e-5 * max(np.ptp(expected), 1e-6), rtol=1e-4)


@pytest.mark.parametrize("pooling", ["token", "avg"])
def test_rollout_and_legrad_are_those_of_a_loop_over_blocks(pooling, timm, torch):
    torch.manual_seed(0)
    options = {"img_size": SIZE, "patch_size": 8, "depth": 3, "embed_dim": 48, "global_pool": pooling}
    module = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=7, **options).eval()
    model = castream.Model(castream.import_torch(module, image_size=SIZE), {"own": castream.NativePooling()})
    pixels = np.random.default_rng(0).random((2, SIZE, SIZE, 3), np.float32)
    methods = ("rollout", "legrad", "legrad:2")
    protocol = castream.Protocol(**{**vars(castream.get_protocol("castream")), "target_class": "label"})
    inputs = Inputs(model, jnp.asarray(pixels), jnp.array([3, 5]), protocol, 2)
    calls = {text: parse_method(text) for text in methods}
    found = {text: call.method.function(inputs, *call.numbers)["own"] for text, call in calls.items()}

    kept: dict[str, list] = {"attention": [], "output": []}
    for block in module.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _, __, y: kept["attention"].append(y))
        block.register_forward_hook(lambda _, __, y: kept["output"].append(y))
    module(torch.from_numpy(np.array(model.backbone.normalise(jnp.asarray(pixels)).transpose(0, 3, 1, 2))))
    flow, relevances = torch.eye(17), []
    for attention, output in zip(kept["attention"], kept["output"], strict=True):
        flow = (torch.eye(17) + attention.mean(1)) / 2 @ flow
        logits = module.forward_head(module.norm(output))
        (gradient,) = torch.autograd.grad(logits[[0, 1], [3, 5]].sum(), attention, retain_graph=True)
        relevances.append(gradient.clamp(min=0).mean((1, 2))[:, 1:])
    expected = {
        "rollout": flow[:, 0, 1:] if pooling == "token" else flow[:, 1:, 1:].mean(1),
        "legrad": torch.stack(relevances).mean(0),
        "legrad:2": torch.stack(relevances[1:]).mean(0),
    }
    for text, scores in expected.items():
        scores = scores.detach().numpy().reshape(2, 4, 4)
        np.testing.assert_allclose(found[text], scores, atol=1e-5 * scores.max(), err_msg=text)


def test_what_is_no_classifier_with_maps_is_refused(timm, torch):
    """Each in one sentence that says what was wrong."""
    nn = torch.nn

    class Network(nn.Module):
        def __init__(self, forward):
            super().__init__()
            self.conv, self.fc, self.rest = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), forward

        def forward(self, x):
            return self.rest(self, self.conv(x))

    def refused(forward, taps=("conv",), **options) -> str:
        with pytest.raises(ValueError, match=r"\.$") as raised:
            castream.import_torch(Network(forward), taps=taps, **NORMALISED | options)
        return str(raised.value)

    def mean(self, x):
        return self.fc(x.mean((2, 3)))

    assert "gives 2 tensors" in refused(lambda self, x: (mean(self, x), x))
    assert "gives [B, 4, 30, 30]" in refused(lambda self, x: x)
    assert "not those of the mean over positions" in refused(lambda self, x: self.fc(x.amax((2, 3))))
    assert "is [B, 2], and no map" in refused(mean, taps=("conv", "fc"))
    assert "torch.export makes no graph" in refused(lambda self, x: mean(self, x) if x.sum() > 0 else mean(self, -x))
    assert "no sub-module 'layer9'" in refused(mean, taps=("layer9",))
    assert "give mean" in refused(mean, mean=None)
    assert "not those of the mean" in refused(lambda self, x: mean(self, x) + x[:, :2].amax((2, 3)))
    assert "mean must be three numbers, of red" in refused(mean, mean=(0.5,))
    assert "std must be three numbers, above zero" in refused(mean, std=(0.5, 0.5, 0.0))
    assert "has 2 classes, and class_names 3 names" in refused(mean, class_names=("a", "b", "c"))
    with pytest.raises(ValueError, match=r"takes images of 224 x 224 pixels alone, got image_size=192"):
        castream.import_torch(timm.create_model("vit_tiny_patch16_224", pretrained=False), image_size=192)
    with pytest.raises(ValueError, match=r"classifier is of networks that do not describe themselves"):
        castream.import_torch(timm.create_model("resnet10t", pretrained=False), classifier="fc")
    with pytest.raises(ValueError, match=r"takes a torch.nn.Module, got str"):
        castream.import_torch("resnet50")


def test_a_classifier_of_zeros_hides_no_other_pooling(torch):
    """All logits are zero, whatever is pooled: noise is put into the zeros for a comparison, and taken out again."""
    nn = torch.nn

    class Untrained(nn.Module):
        def __init__(self, pool):
            super().__init__()
            self.conv, self.fc, self.pool = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), pool
            nn.init.zeros_(self.fc.weight)
            nn.init.zeros_(self.fc.bias)

        def forward(self, x):
            return self.fc(self.pool(self.conv(x)))

    with pytest.raises(ValueError, match="not those of the mean over positions"):
        castream.import_torch(Untrained(lambda x: x.amax((2, 3))), taps=("conv",), **NORMALISED)
    module = Untrained(lambda x: x.mean((2, 3)))
    backbone = castream.import_torch(module, taps=("conv",), **NORMALISED)
    assert not module.fc.weight.any()
    assert not np.asarray(backbone.arrays()["fc.weight"]).any()
    with pytest.raises(ValueError, match="gives the same logits for all images: look at its weights"):
        castream.import_torch(Untrained(lambda x: 0 * x.mean((2, 3))), taps=("conv",), **NORMALISED)


def test_networks_are_named_as_on_the_command_line(timm, torch, tmp_path: Path):
    """timm's by name with a file of weights, from a folder that timm saved for the hub, and a factory of one's own."""
    torch.manual_seed(0)
    saved = timm.create_model("resnet10t", pretrained=False, num_classes=3)
    torch.save({"state_dict": saved.state_dict()}, tmp_path / "weights.pth")
    timm.models.save_for_hf(saved, tmp_path / "hub", model_args={"num_classes": 3}, safe_serialization=True)
    for module in (
        open_network("timm:resnet10t", tmp_path / "weights.pth", num_classes=3),
        open_network(f"timm:{tmp_path / 'hub'}"),
    ):
        assert torch.equal(module.fc.weight, saved.fc.weight)
    tiny = open_network(f"{Path(__file__).parent / 'make_tiny.py'}:tiny")
    assert found_taps(tiny.eval(), 64) == ("stem", "out")  # the last map of 16 x 16, and of 8 x 8
    with pytest.raises(ValueError, match=r"not those of timm:resnet10t .*misshaped: fc.weight.* give --num-classes 3"):
        open_network("timm:resnet10t", tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"timm has no network 'resnet51'.* Did you mean"):
        open_network("timm:resnet51")
    with pytest.raises(ValueError, match="names no PyTorch network"):
        open_network("resnet50")
