"""What `attribute` and `score` refuse, and that a number which is not finite never passes for a result."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.attribution import min_max
from castream_jax.attribution.arguments import check_pixels
from castream_jax.metrics import masking

pytestmark = pytest.mark.usefixtures("unchecked_calls")

PIXELS = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
LABELS = np.array([3, 7], np.int32)
MAPS = {("gap", "gradcam"): np.full((2, 4, 4), 0.5, np.float32)}


def broken(values: np.ndarray, value: float) -> np.ndarray:
    values = values.copy()
    values[1, 2, 3] = value
    return values


@pytest.mark.parametrize(
    ("pixels", "sentence"),
    [
        (255 * PIXELS, r"pixels must lie in \[0, 1\], got 0\.\d+ … 25\d.*: the model normalises them itself"),
        ((PIXELS - 0.45) / 0.22, r"pixels must lie in \[0, 1\], got -2\.\d+ … 2\.\d+"),
        (jnp.asarray(255 * PIXELS), r"pixels must lie in \[0, 1\]"),
        ((255 * PIXELS).astype(np.uint8), "floating point in .*, got uint8: divide 8-bit values by 255"),
        (PIXELS > 0.5, r"pixels must be floating point in \[0, 1\], got bool\.$"),
        (broken(PIXELS, np.nan).astype(">f4"), "pixels must be finite, got NaN or infinity"),
        (broken(PIXELS, np.nan), "pixels must be finite, got NaN or infinity"),
        (broken(PIXELS, np.inf), "pixels must be finite, got NaN or infinity"),
        (np.ma.masked_greater(PIXELS, 0.5), r"A masked array was given.*: use \.filled\(value\)"),
        (PIXELS[0], r"got one image, \[16, 16, 3\]: give pixels\[None\]"),
        (PIXELS.transpose(0, 3, 1, 2), r"must be \[B, H, W, 3\], RGB, got \[2, 3, 16, 16\]"),
        (PIXELS[..., :1], r"must be \[B, H, W, 3\], RGB, got \[2, 16, 16, 1\]"),
        (PIXELS[:0], r"at least one image of at least one pixel, got \[0, 16, 16, 3\]"),
        (PIXELS.tolist(), "must be an array .*, got list: use numpy.stack"),
    ],
)
def test_pixels_that_are_none(small_model, pixels, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        castream.attribute(small_model, pixels, LABELS)
    with pytest.raises(ValueError, match=sentence):
        castream.score(small_model, pixels, LABELS, MAPS)


@pytest.mark.parametrize("dtype", [">f4", ">f8", np.longdouble, np.float64])
def test_pixels_of_a_type_that_jax_does_not_take_are_converted(dtype):
    pixels = check_pixels(PIXELS.astype(dtype))
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, PIXELS)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (np.array([3.7, 1.0]), "class numbers, of an integer type, got float64"),
        (np.array([True, False]), "class numbers, of an integer type, got bool"),
        ([3, 10], "labels must lie in 0 … 9, got 3 … 10"),
        (3, r"one class per image, got \[\]"),
        ([[3], [3, 7]], "one class number per image, got lists of several lengths"),
        (LABELS[:1], r"labels must be \[B\] = \[2\], one class per image, got \[1\]"),
    ],
)
def test_labels_that_are_none(small_model, labels, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        castream.attribute(small_model, PIXELS, labels)
    with pytest.raises(ValueError, match=sentence):
        castream.score(small_model, PIXELS, labels, MAPS)


@pytest.mark.parametrize(
    ("maps", "sentence"),
    [
        ({"gap": MAPS["gap", "gradcam"]}, r"named by \(head, method\), .* got 'gap'"),
        ({("gap", "gradcam"): 200 * MAPS["gap", "gradcam"]}, r"Map \('gap', 'gradcam'\) must lie in \[0, 1\], got 100"),
        (MAPS["gap", "gradcam"], r"maps are \{\(head, method\): array\}, .*, got ndarray"),
        ({("gap", "gradcam"): MAPS["gap", "gradcam"].tolist()}, r"must be an array \[B, h, w\], got list"),
        ({("gap", "gradcam"): broken(MAPS["gap", "gradcam"], np.nan)}, "must be finite"),
    ],
)
def test_maps_that_are_none(small_model, maps, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        castream.score(small_model, PIXELS, LABELS, maps)


@pytest.mark.parametrize("dtype", [">f4", np.longdouble])
def test_maps_of_a_type_that_jax_does_not_take_are_converted(small_model, dtype):
    scores = [
        castream.score(small_model, PIXELS, LABELS, {("gap", "gradcam"): maps}, metrics=("AD",))
        for maps in (MAPS["gap", "gradcam"], MAPS["gap", "gradcam"].astype(dtype))
    ]
    np.testing.assert_array_equal(*(one["gap", "gradcam"]["AD"] for one in scores))


def test_a_text_is_no_sequence_of_methods(small_model):
    sentence = r"{} must be a sequence of names, such as \('{}',\), got the text '{}'"
    with pytest.raises(ValueError, match=sentence.format("methods", "gradcam", "gradcam")):
        castream.attribute(small_model, PIXELS, LABELS, methods="gradcam")
    with pytest.raises(ValueError, match=sentence.format("methods", "gradcam", "gradcam")):
        castream.explain(small_model, PIXELS[0], methods="gradcam")
    with pytest.raises(ValueError, match=sentence.format("heads", "gap", "gap")):
        castream.explain(small_model, PIXELS[0], heads="gap")
    with pytest.raises(ValueError, match=sentence.format("metrics", "AD", "AD")):
        castream.score(small_model, PIXELS, LABELS, MAPS, metrics="AD")
    for methods in (3, [3]):
        with pytest.raises(ValueError, match=r"methods must be a sequence of names, .*3"):
            castream.attribute(small_model, PIXELS, LABELS, methods=methods)


@pytest.mark.parametrize("chunk", [0, -1, 1.5, True])
def test_a_chunk_is_a_number_of_images(small_model, chunk):
    with pytest.raises(ValueError, match="chunk must be a whole number of masked images, at least 1, got"):
        castream.attribute(small_model, PIXELS, LABELS, ("scorecam",), chunk=chunk)
    with pytest.raises(ValueError, match="chunk must be a whole number of masked images, at least 1, got"):
        castream.score(small_model, PIXELS, LABELS, MAPS, chunk=chunk)


def test_models_are_made_of_backbones_and_named_heads(small_model):
    backbone, gap = small_model.backbone, castream.GlobalAveragePooling()
    for given, heads, sentence in (
        ("resnet50", {"gap": gap}, "A model needs a backbone, got 'resnet50'"),
        (backbone, gap, r"heads are \{name: head\}, .* got GlobalAveragePooling"),
        (backbone, [gap], r"heads are \{name: head\}, .* got list"),
        (backbone, {"gap": castream.GlobalAveragePooling}, "a text and a module each, got 'gap': <class"),
    ):
        with pytest.raises(ValueError, match=sentence):
            castream.Model(given, heads)
    with pytest.raises(ValueError, match=r"pixels must be an array .*, got list"):
        small_model(PIXELS.tolist())
    with pytest.raises(ValueError, match=r"pixels must lie in \[0, 1\], got 0\.\d+ … 25\d"):
        small_model.predict(255 * PIXELS)
    needed = r"A castream\.Model is needed, got a CifarResNet: castream\.Model\(backbone, .* makes one"
    for call in (castream.attribute, lambda *given: castream.score(*given, MAPS)):
        with pytest.raises(ValueError, match=needed):
            call(backbone, PIXELS, LABELS)
    with pytest.raises(ValueError, match="got the name 'resnet50'"):
        castream.explain("resnet50", PIXELS[0])
    with pytest.raises(ValueError, match=r"rngs must be a flax\.nnx\.Rngs, such as nnx\.Rngs\(0\), got 0"):
        castream.create_backbone("cifar_resnet8", rngs=0)
    with pytest.raises(ValueError, match=r"stage_dims are numbers, backbone\.stage_dims, got "):
        castream.CrossAttentionStream(backbone, rngs=nnx.Rngs(0))
    for number, sentence in (
        (0, "positive, got 0"),
        (2.5, "a whole number, got 2.5"),
        (True, "a whole number, got True"),
    ):
        with pytest.raises(ValueError, match=f"num_classes must be {sentence}"):
            castream.create_backbone("cifar_resnet8", number, rngs=nnx.Rngs(0))
    for taps in ("layer4", ["layer4"], 3):
        with pytest.raises(ValueError, match="taps must be 'official', 'stages' or numbers of boundaries, got"):
            castream.create_backbone("cifar_resnet8", 2, rngs=nnx.Rngs(0), taps=taps)


@pytest.mark.usefixtures("unchecked_calls")
@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"size": 0}, "a whole number of pixels, at least 1, got 0"),
        ({"size": "64"}, "a whole number of pixels, at least 1, got '64'"),
        ({"resize": "centre_crop"}, "resize must be 'squash' or 'center_crop' or 'none', got 'centre_crop'"),
        ({"class_names": "abc"}, "a sequence of names, got 'abc'"),
        ({"class_names": [1, 2]}, r"a sequence of names, got \[1, 2\]"),
    ],
)
def test_how_images_come_to_a_model_is_checked(fields: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        castream.ImageSpec(**{"size": 64} | fields)
    assert castream.ImageSpec(64, class_names=["a", "b"]).class_names == ("a", "b")


def test_inside_a_trace_nothing_is_checked(small_model):
    graphdef, state = nnx.split(small_model)

    @jax.jit
    def maps(state: nnx.State, pixels: jax.Array) -> jax.Array:
        return castream.attribute(nnx.merge(graphdef, state), pixels, LABELS)["ca", "gradcam"]

    assert np.isnan(maps(state, broken(PIXELS, np.nan))[1]).all()
    np.testing.assert_allclose(
        maps(state, PIXELS), castream.attribute(small_model, PIXELS, LABELS)["ca", "gradcam"], rtol=0, atol=1e-5
    )


def test_weights_that_are_not_finite_are_no_best_score(small_model):
    graphdef, state = nnx.split(small_model)
    model = nnx.merge(graphdef, jax.tree.map(jnp.copy, state))
    kernel = model.backbone.conv1.kernel
    kernel.set_value(kernel[...].at[0, 0, 0, 0].set(jnp.nan))
    with pytest.raises(ValueError, match="The model's output is not finite on image 0 of 2: look at its weights"):
        castream.attribute(model, PIXELS, LABELS)
    with pytest.raises(ValueError, match="The model's output is not finite on image 0 of 2: look at its weights"):
        castream.score(model, PIXELS, LABELS, MAPS)


def test_nan_propagates():
    nan = jnp.asarray([jnp.nan, 0.5])
    for metric in (masking.average_drop, masking.average_gain, masking.average_increase):
        for p, o in ((nan, nan[::-1]), (nan[::-1], nan)):
            assert np.isnan(metric(p, o)).all()
    assert np.isnan(min_max(jnp.asarray(broken(MAPS["gap", "gradcam"], np.nan)))).any((1, 2)).tolist() == [False, True]


def test_a_softmax_over_one_class_measures_nothing():
    backbone = castream.create_backbone("cifar_resnet8", num_classes=1, rngs=nnx.Rngs(0))
    model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling()})
    with pytest.raises(ValueError, match=r'one class, whose softmax is always 1, .* probability="sigmoid"'):
        castream.score(model, PIXELS, np.zeros(2, np.int32), MAPS)
    with pytest.raises(ValueError, match="num_classes must be positive, got 0"):
        castream.create_backbone("cifar_resnet8", num_classes=0, rngs=nnx.Rngs(0))
