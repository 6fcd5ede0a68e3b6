"""The registry of methods: what can be named, methods from outside, and laws that all of them obey."""

from collections.abc import Iterator
import dataclasses
import functools

from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.attribution import METHODS, Inputs, register_method, saliency_maps
from castream_jax.drawing.titles import method_title

PIXELS = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
LABELS = np.array([0, 1])


@pytest.fixture
def brightness() -> Iterator[None]:
    """A method from outside the package, with a number of its own: the channel."""

    @register_method("brightness", check=check_channel)
    def brightness(inputs: Inputs, channel: int = 0) -> dict[str, jax.Array]:
        return dict.fromkeys(inputs.model.heads, inputs.pixels[..., channel])

    @register_method("brightness_of_nothing")
    def of_nothing(inputs: Inputs) -> dict[str, jax.Array]:
        return {}

    yield
    del METHODS["brightness"], METHODS["brightness_of_nothing"]


def check_channel(model: castream.Model, protocol: castream.Protocol, channel: int = 0) -> None:
    if channel > 2:
        raise ValueError(f"An image has channels 0 … 2, got {channel}.")


@pytest.mark.slow
def test_a_method_from_outside_is_explained_and_scored(small_model, brightness):
    maps = castream.attribute(small_model, PIXELS, LABELS, ("brightness:2", "inverted-brightness:2", "gradcam"))
    blue = PIXELS[..., 2]
    low, high = blue.min((1, 2), keepdims=True), blue.max((1, 2), keepdims=True)
    np.testing.assert_allclose(maps["ca", "brightness:2"], (blue - low) / (high - low), rtol=0, atol=1e-6)
    scores = castream.score(small_model, PIXELS, LABELS, maps)
    assert scores.keys() == maps.keys()
    for (head, method), of_map in scores.items():
        if method != "gradcam":  # whose maps are smaller than the image
            masked = PIXELS * np.asarray(maps[head, method])[..., None]
            o = jax.nn.softmax(small_model(masked)[head])[jnp.arange(2), LABELS]
            np.testing.assert_allclose(of_map["o"], o, rtol=1e-4)


def test_a_method_from_outside_checks_its_numbers(small_model, brightness):
    with pytest.raises(ValueError, match="An image has channels 0 … 2, got 3"):
        castream.attribute(small_model, PIXELS, LABELS, ("brightness:3",))
    with pytest.raises(
        ValueError, match=r"'brightness:0:1': brightness takes the numbers channel after its name, got 2"
    ):
        castream.attribute(small_model, PIXELS, LABELS, ("brightness:0:1",))
    with pytest.raises(ValueError, match=r"'brightness_of_nothing' has no map for any head of the model \(ca, gap\)"):
        castream.attribute(small_model, PIXELS, LABELS, ("brightness_of_nothing",))


def test_names_that_cannot_be_told_apart_are_refused():
    with pytest.raises(ValueError, match="already an attribution method 'gradcam'"):
        register_method("gradcam")(lambda inputs: {})
    for name in ("mine:2", "inverted-mine"):
        with pytest.raises(ValueError, match=f"has no colon and does not begin with 'inverted-': '{name}'"):
            register_method(name)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("gradcamm", "no attribution method 'gradcamm': did you mean 'gradcam'"),
        ("gradcam:2", "'gradcam:2': gradcam takes no numbers after its name, got 1"),
        ("inverted-random:0", "'inverted-random:0': random takes no numbers after its name, got 1"),
        ("attention:last", "must be numbers, as in attention:2"),
        ("inverted-inverted-gradcam", "no attribution method 'inverted-inverted-gradcam'"),
        ("inverted-", "no attribution method 'inverted-': choose from"),
    ],
)
def test_texts_that_name_no_method_are_refused(small_model, method: str, message: str):
    with pytest.raises(ValueError, match=message):
        castream.attribute(small_model, PIXELS, LABELS, ("gradcam", method))


def test_no_method_at_all_is_refused(small_model):
    with pytest.raises(ValueError, match=r"No attribution method was given: choose from .*gradcam"):
        castream.attribute(small_model, PIXELS, LABELS, ())


@pytest.mark.parametrize(
    ("method", "title"),
    [
        ("gradcam++", "Grad-CAM++"),
        ("attention:2", "Raw attention, S2"),
        ("attention_logits:0:3", "Attention logits, S0, attention head 3"),
        ("inverted-ones", "All ones, inverted"),
        ("inverted-attention:1", "Raw attention, S1, inverted"),
        ("mine:3", "mine:3"),
        ("inverted-mine", "inverted-mine"),
    ],
)
def test_titles_are_the_published_spellings(method: str, title: str):
    assert method_title(method) == title


def test_every_method_has_a_title():
    assert [method for method in METHODS if method_title(method) == method] == []


# Those that mask images have tests of their own.
FROM_ONE_PASS = (
    "cam",
    "gradcam",
    "gradcam++",
    "xgradcam",
    "hirescam",
    "layercam",
    "attention",
    "attention:0",
    "attention_logits:1:1",
    "random",
    "centre",
    "ones",
    "inverted-gradcam",
)


@pytest.fixture(scope="module")
def explained():
    """`(scale of the parameters, protocol, pixels, labels) -> maps`, compiled once per protocol."""
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    dims = backbone.stage_dims
    heads = {
        "gap": castream.GlobalAveragePooling(),
        "ca": castream.CrossAttentionStream(dims, num_heads=2, rngs=nnx.Rngs(1)),
        "per_class": castream.CrossAttentionStream(dims, 1, "proj_ca", 10, num_heads=2, rngs=nnx.Rngs(2)),
    }
    # Not the running variances, of which a square root is taken.
    graphdef, params, statistics = nnx.split(castream.Model(backbone, heads), nnx.Param, ...)

    @functools.partial(jax.jit, static_argnames="kind")
    def run(scale, kind, pixels, labels):
        scaled = jax.tree.map(lambda leaf: leaf * scale, params)
        protocol = dataclasses.replace(castream.get_protocol("castream"), gradcampp_sum=kind)
        return saliency_maps(
            Inputs(nnx.merge(graphdef, scaled, statistics), pixels, labels, protocol, 8), FROM_ONE_PASS
        )

    return run


@pytest.mark.slow
@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([0.0, 1e-12, 1e-4, 0.1, 1.0, -1.0, 3.0]),
    contrast=st.sampled_from([0.0, 1e-6, 0.1, 1.0]),
    kind=st.sampled_from(["a*g3", "sum(a*g3)"]),
)
def test_maps_are_finite_and_in_the_unit_interval(explained, seed: int, scale: float, contrast: float, kind: str):
    """Also for black images, parameters of 0 (no features, no gradient), and saturated softmaxes."""
    rng = np.random.default_rng(seed)
    pixels = (contrast * rng.random((3, 8, 12, 3))).astype(np.float32)
    maps = explained(scale, kind, pixels, rng.integers(0, 10, 3))
    assert len(maps) == 1 + 9 * 3 + 2 + 1 + 2  # cam: GAP alone; attention: streams; its S0: one of them, S1: both
    for key, saliency in maps.items():
        assert saliency.shape[0] == 3
        assert bool(jnp.isfinite(saliency).all()), key
        assert 0 <= float(saliency.min()) <= float(saliency.max()) <= 1, key
    if scale == 0:
        for method in ("cam", "gradcam", "gradcam++", "xgradcam", "hirescam", "layercam"):
            np.testing.assert_array_equal(maps["gap", method], 0)
