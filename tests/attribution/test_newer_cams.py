"""Eigen-CAM, ShapleyCAM and Finer-CAM: their equations taken another way, and pytorch-grad-cam's maps."""

import importlib
from types import ModuleType

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.attribution import METHODS, Inputs
from castream_jax.attribution.eigencam import first_component
from castream_jax.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD

PROTOCOL = castream.get_protocol("castream")


class Quadratic(Inputs):
    """A logit that is quadratic in the features, `sum_k c_k m_k^2` with m the means over positions: H is known."""

    def __init__(self, model: castream.Model, features: jax.Array, factors: jax.Array):
        self.model, self.features, self.factors = model, features, factors

    def class_logit(self, head: str, target: jax.Array) -> jax.Array:
        return (self.factors[None] * target.mean((1, 2)) ** 2).sum(-1)


@pytest.mark.parametrize("shape", [(3, 4, 4, 20), (2, 7, 6, 5)])  # fewer positions than channels, and more
def test_eigencam_is_the_first_singular_vector(shape):
    features = np.random.default_rng(0).normal(size=shape)
    found = np.asarray(first_component(jnp.asarray(features, jnp.float32)))
    for image, projected in zip(features, found, strict=True):
        x = image.reshape(-1, shape[-1])
        x = x - x.mean(0)
        expected = (x @ np.linalg.svd(x)[2][0]).reshape(shape[1:3])
        expected *= np.sign(expected.flat[np.abs(expected).argmax()])
        np.testing.assert_allclose(projected, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_shapleycam_adds_the_second_order():
    rng = np.random.default_rng(0)
    backbone = castream.create_backbone("cifar_resnet8", 2, rngs=nnx.Rngs(0))
    model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling()})
    features, factors = rng.normal(1, 1, (2, 3, 4, 5)).astype(np.float32), rng.normal(size=5).astype(np.float32)
    found = METHODS["shapleycam"].function(Quadratic(model, jnp.asarray(features), jnp.asarray(factors)))["gap"]
    # g = 2 c m / N at each position and H F the same, so that half of g is left.
    weights = factors * features.mean((1, 2)) / 12
    np.testing.assert_allclose(found, np.maximum(np.einsum("bhwd,bd->bhw", features, weights), 0), atol=1e-6)


@pytest.mark.slow
def test_shapleycam_is_gradcam_where_heads_pool_and_the_classifier_is_linear():
    """Attention sums to 1: a channel that is raised everywhere raises the representation by a constant."""
    backbone = castream.load_backbone("cifar_resnet8", "digits")
    stream = castream.CrossAttentionStream(backbone.stage_dims, block="proj_ca", rngs=nnx.Rngs(1))
    model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling(), "ca": stream})
    pixels = jnp.asarray(np.random.default_rng(0).random((2, 32, 32, 3)), jnp.float32)
    inputs = Inputs(model, pixels, jnp.array([3, 1]), PROTOCOL, 8)
    gradcam, found = (METHODS[name].function(inputs) for name in ("gradcam", "shapleycam"))
    for head in model.heads:
        np.testing.assert_allclose(found[head], gradcam[head], rtol=0, atol=1e-5 * float(gradcam[head].max()))


@pytest.mark.slow
def test_finercam_of_two_classes_is_gradcam_of_their_difference():
    backbone = castream.create_backbone("cifar_resnet8", 2, rngs=nnx.Rngs(0))
    stream = castream.CrossAttentionStream(backbone.stage_dims, rngs=nnx.Rngs(1))
    model = castream.Model(backbone, {"ca": stream})
    pixels = jnp.asarray(np.random.default_rng(0).random((2, 32, 32, 3)), jnp.float32)
    of = [Inputs(model, pixels, jnp.full(2, label), PROTOCOL, 8) for label in (0, 1)]
    weights = (of[0].gradient("ca") - of[1].gradient("ca")).mean((1, 2))
    expected = jax.nn.relu(jnp.einsum("bhwd,bd->bhw", of[0].features, weights))
    found = METHODS["finercam"].function(of[0])["ca"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * float(jnp.abs(expected).max()) + 1e-7)


def test_finercam_needs_another_class():
    backbone = castream.create_backbone("cifar_resnet8", 1, rngs=nnx.Rngs(0))
    model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling()})
    with pytest.raises(ValueError, match="Finer-CAM compares a class with others"):
        castream.attribute(model, np.zeros((1, 32, 32, 3), np.float32), np.zeros(1, np.int32), methods=("finercam",))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["eigencam", "shapleycam", "finercam"])
def test_maps_are_those_of_pytorch_grad_cam(method: str, torch: ModuleType, torchvision: ModuleType):
    """Under GAP, ResNet-18 with random weights, 128 x 160 pixels, the class predicted; at feature resolution."""
    peers = pytest.importorskip("pytorch_grad_cam", reason="pytorch-grad-cam is not installed: nothing to compare with")
    network = torchvision.models.resnet18(weights=None).eval()
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    backbone = castream.create_backbone("resnet18", 1000, rngs=nnx.Rngs(0))
    castream.load_torch_state_dict(backbone, state)
    model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling()})
    pixels = np.random.default_rng(0).random((2, 128, 160, 3), np.float32)
    ours = castream.attribute(model, pixels, np.zeros(2, np.int32), methods=(method,), protocol="castream-pred")[
        "gap", method
    ]

    name = {"eigencam": "EigenCAM", "shapleycam": "ShapleyCAM", "finercam": "FinerCAM"}[method]
    module = importlib.import_module({"finercam": "pytorch_grad_cam.finer_cam"}.get(method, "pytorch_grad_cam"))
    cam = getattr(module, name)(network, [network.layer4])
    base = getattr(cam, "base_cam", cam)
    base.get_target_width_height = lambda _: (5, 4)  # not enlarged
    given = torch.tensor((pixels - IMAGENET_MEAN) / IMAGENET_STD, dtype=torch.float32).permute(0, 3, 1, 2)
    if method == "eigencam":  # its sign is the decomposition's
        features = network_features(network, torch, given)
        theirs = peers.utils.svd_on_activations.get_2d_projection(features)
        signs = np.sign(theirs.reshape(2, -1)[np.arange(2), np.abs(theirs).reshape(2, -1).argmax(1)])
        theirs = np.maximum(theirs * signs[:, None, None], 0)
    else:
        theirs = cam(given, None)
    low, high = theirs.min((1, 2), keepdims=True), theirs.max((1, 2), keepdims=True)
    np.testing.assert_allclose(ours, (theirs - low) / (high - low), rtol=0, atol=1e-3)


def network_features(network, torch: ModuleType, given) -> np.ndarray:
    kept = []
    hook = network.layer4.register_forward_hook(lambda *arguments: kept.append(arguments[-1]))
    with torch.no_grad():
        network(given)
    hook.remove()
    return kept[0].numpy()
