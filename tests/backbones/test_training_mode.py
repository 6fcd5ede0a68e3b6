"""The trunk is frozen: no mode of a module lets the other images of a batch into an image's numbers."""

# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable, Sequence
import copy

from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array
import numpy as np
import pytest

import castream_jax as castream

PIXELS = np.random.default_rng(0).random((4, 16, 16, 3), np.float32)
LABELS = np.arange(4, dtype=np.int32)


class Foreign(castream.Backbone):
    """A user's own trunk of flax.nnx's layers, whose BatchNorm begins in training mode."""

    def __init__(self, rngs: nnx.Rngs):
        super().__init__("foreign", num_classes=5, boundary_dims=(6, 8), stride=2)
        self.conv1 = nnx.Conv(3, 6, (3, 3), padding=1, rngs=rngs)
        self.bn1 = nnx.BatchNorm(6, rngs=rngs, epsilon=1e-5)
        self.conv2 = nnx.Conv(6, 8, (3, 3), strides=2, padding=1, rngs=rngs)
        self.bn2 = nnx.BatchNorm(8, rngs=rngs, epsilon=1e-5)
        self.fc = nnx.Linear(8, 5, rngs=rngs)

    def _parts(self) -> Sequence[Callable[[Array], Array]]:
        return (
            lambda x: jax.nn.relu(self.bn1(self.conv1(x))),
            lambda x: jax.nn.relu(self.bn2(self.conv2(x))),
        )

    def classify(self, representation: Array) -> Array:
        return self.fc(representation)


def statistics(module: nnx.Module) -> dict:
    return nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))


def heads() -> dict[str, castream.GlobalAveragePooling]:
    return {"gap": castream.GlobalAveragePooling()}


def test_a_foreign_batch_norm_gives_pytorchs_logits(torch):
    layers = torch.nn
    network = layers.Sequential()
    for name, layer in {
        "conv1": layers.Conv2d(3, 6, 3, padding=1),
        "bn1": layers.BatchNorm2d(6),
        "relu1": layers.ReLU(),
        "conv2": layers.Conv2d(6, 8, 3, stride=2, padding=1),
        "bn2": layers.BatchNorm2d(8),
        "relu2": layers.ReLU(),
        "pool": layers.AdaptiveAvgPool2d(1),
        "flatten": layers.Flatten(),
        "fc": layers.Linear(8, 5),
    }.items():
        network.add_module(name, layer)
    backbone = Foreign(nnx.Rngs(0))
    inputs = torch.tensor(np.array(backbone.normalise(PIXELS))).permute(0, 3, 1, 2)
    network(3 * inputs)  # moves the running statistics away from 0 and 1
    network.eval()
    castream.load_torch_state_dict(backbone, {k: v.numpy() for k, v in network.state_dict().items()})
    with torch.no_grad():
        expected = network(inputs).numpy()
    # 1e-5: float32 sums in another order.
    np.testing.assert_allclose(castream.Model(backbone, heads())(PIXELS)["gap"], expected, rtol=0, atol=1e-5)


def test_an_image_does_not_depend_on_the_others_and_statistics_stay():
    backbone = Foreign(nnx.Rngs(0))
    model = castream.Model(backbone, heads())
    before = copy.deepcopy(statistics(model))
    for train in (model.train, backbone.train):
        train()
        together = model(PIXELS)["gap"]
        np.testing.assert_allclose(together[:1], model(PIXELS[:1])["gap"], rtol=0, atol=1e-6)
        jax.tree.map(np.testing.assert_array_equal, statistics(model), before)


@pytest.mark.parametrize("own", [True, False])
def test_maps_scores_and_explanations_are_of_inference_whatever_the_module_says(own: bool):
    backbone = Foreign(nnx.Rngs(0)) if own else castream.create_backbone("cifar_resnet8", 5, rngs=nnx.Rngs(0))
    model = castream.Model(backbone, heads(), castream.ImageSpec(16, "none"))
    expected = castream.attribute(model, PIXELS, LABELS)
    scores = castream.score(model, PIXELS, LABELS, expected, metrics=("AD",))
    probabilities = castream.explain(model, PIXELS[0]).probabilities["gap"]
    model.backbone.train()
    before = copy.deepcopy(statistics(model))
    maps = castream.attribute(model, PIXELS, LABELS)
    np.testing.assert_array_equal(maps["gap", "gradcam"], expected["gap", "gradcam"])
    again = castream.score(model, PIXELS, LABELS, maps, metrics=("AD",))
    np.testing.assert_array_equal(again["gap", "gradcam"]["AD"], scores["gap", "gradcam"]["AD"])
    np.testing.assert_array_equal(castream.explain(model, PIXELS[0]).probabilities["gap"], probabilities)
    jax.tree.map(np.testing.assert_array_equal, statistics(model), before)


def test_weights_that_are_not_finite_are_refused():
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    weights = {name: np.array(value) for name, value in castream.backbones.torch_state_dict(backbone).items()}
    weights["conv1.weight"][0, 0, 0, 0] = np.nan
    weights["linear.bias"][0] = np.inf
    with pytest.raises(ValueError, match=r"are not finite: conv1\.weight, linear\.bias\. Get the file again"):
        castream.load_torch_state_dict(backbone, weights)
    assert jnp.isfinite(backbone.conv1.kernel[...]).all()


def test_an_attribute_that_is_no_constant_is_named():
    backbone = Foreign(nnx.Rngs(0))
    backbone.depths = [1, 2]
    with pytest.raises(ValueError, match=r"must be a constant \(Foreign\.depths is a list\): make it a tuple or"):
        castream.Model(backbone, heads())
