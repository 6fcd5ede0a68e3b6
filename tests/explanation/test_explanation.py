"""`castream.explain`: the numbers of the library and of the official code, drawn where they belong."""

# pyright: reportAttributeAccessIssue=false

import base64
import dataclasses
from html.parser import HTMLParser
import io
import json
from pathlib import Path
import re

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest
from sklearn.datasets import load_sample_image

import castream_jax as castream
from castream_jax.data import UnreadableImageError
from castream_jax.data.imagenet import imagenet_classes
from castream_jax.explanation.class_number import class_number
from castream_jax.explanation.explain import _explain
from castream_jax.explanation.given_images import OrientationWarning, read_image
from castream_jax.stream import CrossAttentionStream, GlobalAveragePooling

# Two programs round sums otherwise.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph of 640 x 427 pixels."""
    path = tmp_path_factory.mktemp("photo") / "flower <b>&.png"
    Image.fromarray(load_sample_image("flower.jpg")).save(path)
    return path


@pytest.fixture(scope="module")
def model() -> castream.Model:
    """GAP, a stream from S0, and one from S2 with four attention heads; ten named classes."""
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(1))
    heads = {
        "gap": GlobalAveragePooling(),
        "four": CrossAttentionStream(backbone.stage_dims, start_stage=2, num_heads=4, rngs=nnx.Rngs(3)),
        "ca": CrossAttentionStream(backbone.stage_dims, rngs=nnx.Rngs(2)),
    }
    names = tuple(f"<i>{letter}</i>" for letter in "abcdefghij")
    return castream.Model(backbone, heads, castream.ImageSpec(40, "squash", names))


@pytest.fixture(scope="module")
def explanation(model: castream.Model, photo: Path) -> castream.Explanation:
    return castream.explain(model, photo)


@pytest.mark.slow
def test_numbers_are_those_of_the_library(model, explanation, photo):
    with Image.open(photo) as image:
        squashed = np.asarray(image.resize((40, 40), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(explanation.pixels, squashed)
    pixels = squashed[None].astype(np.float32) / 255
    maps = castream.attribute(model, pixels, np.zeros(1, np.int32), ("attention", "gradcam"), "castream-pred")
    order = [("four", "attention"), ("ca", "attention"), ("gap", "gradcam"), ("four", "gradcam"), ("ca", "gradcam")]
    assert list(explanation.maps) == order
    for key, saliency in explanation.maps.items():
        np.testing.assert_allclose(saliency, maps[key][0], **CLOSE)
    stages = model.backbone.stages(pixels)
    assert {head: list(stages) for head, stages in explanation.attention.items()} == {
        "four": [2, 3],
        "ca": [0, 1, 2, 3],
    }
    for head, of_stage in explanation.attention.items():
        stream = model.heads[head]
        for number, attention in enumerate(stream(stages)[1], stream.start_stage):
            assert of_stage[number].shape[0] == stream.num_heads
            np.testing.assert_allclose(of_stage[number], attention[0], **CLOSE)
    for head, probabilities in model.predict(pixels).items():
        np.testing.assert_allclose(explanation.probabilities[head], probabilities[0], **CLOSE)
        assert explanation.classes[head] == explanation.predictions(head)[0].number == int(jnp.argmax(probabilities[0]))


def test_numbers_are_those_of_the_official_code(golden, golden_model):
    images = list(golden["images"][:5])
    for i, image in enumerate(images):
        label = int(golden["labels"][i])
        explained = castream.explain(golden_model, image, label=label, methods=("gradcam", "gradcam++"))
        assert explained.classes == {"gap": label, "ca": label}
        for head in ("gap", "ca"):
            logits = golden[f"{head}/logits"][i].astype(np.float64)
            np.testing.assert_allclose(
                explained.probabilities[head], np.exp(logits) / np.exp(logits).sum(), rtol=0, atol=1e-5
            )
            np.testing.assert_allclose(
                explained.maps[head, "gradcam"], golden[f"{head}/gradcam/map"][i], rtol=0, atol=1e-4
            )
            np.testing.assert_allclose(
                explained.maps[head, "gradcam++"], golden[f"{head}/gradcampp/map"][i], rtol=0, atol=1e-4
            )
        for stage, attention in explained.attention["ca"].items():
            weights = np.exp(golden[f"attention_logits_{stage}"][i].astype(np.float64))
            np.testing.assert_allclose(attention[0], weights / weights.sum(), rtol=1e-3, atol=1e-7)


def test_all_heads_share_one_trunk_pass(model):
    graphdef, state = nnx.split(model)
    pixels, labels = np.zeros((2, 40, 40, 3), np.uint8), np.zeros(2, np.int32)
    protocol = castream.get_protocol("castream")
    options = {"methods": ("attention", "gradcam"), "protocol": protocol, "chunk": 1}
    explaining = jax.make_jaxpr(lambda state, *a: _explain(nnx.merge(graphdef, state), *a, **options))
    passing = jax.make_jaxpr(lambda state, pixels: nnx.merge(graphdef, state).backbone.stages(pixels))
    count = str(passing(state, pixels.astype(np.float32))).count("conv_general_dilated[")
    assert count > 5
    assert str(explaining(state, pixels, labels)).count("conv_general_dilated[") == count


@pytest.mark.slow
def test_batches_are_compiled_once_and_filled_up(model):
    images = [np.asarray(Image.fromarray(load_sample_image("china.jpg")).crop((i, 0, 400 + i, 300))) for i in range(5)]
    before = _explain._program._cache_size()
    together = list(castream.explain_many(model, iter(images), batch_size=2))
    assert _explain._program._cache_size() == before + 1
    assert len(together) == 5
    for image, explained in zip(images, together, strict=True):
        alone = castream.explain(model, image)
        for key, saliency in alone.maps.items():
            np.testing.assert_allclose(explained.maps[key], saliency, **CLOSE)
        np.testing.assert_array_equal(explained.pixels, alone.pixels)


def test_another_class_is_explained_by_number_or_name(model, photo, explanation):
    number = (explanation.classes["ca"] + 1) % 10
    by_number, by_name = (
        castream.explain(model, photo, label=label, heads=["ca"])
        for label in (number, explanation.class_names[number].upper())
    )
    assert by_number.classes == by_name.classes == {"ca": number}
    assert by_number.explained("ca") == by_number.prediction("ca", number)
    pixels = explanation.pixels[None].astype(np.float32) / 255
    for key, saliency in castream.attribute(model, pixels, np.array([number]), ("attention", "gradcam")).items():
        if key[0] == "ca":
            np.testing.assert_allclose(by_number.maps[key], saliency[0], **CLOSE)
            np.testing.assert_array_equal(by_name.maps[key], by_number.maps[key])
    assert not np.allclose(by_number.maps["ca", "gradcam"], explanation.maps["ca", "gradcam"], atol=1e-3)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"label": 10}, "There is no class 10: the model's classes are 0 … 9."),
        ({"label": "<i>e<i>"}, "There is no class called '<i>e<i>': did you mean '<i>e</i>'"),
        ({"heads": ["cls"]}, "There is no head 'cls': the model's heads are gap, four, ca."),
        ({"methods": ["grad-cam"]}, "did you mean 'gradcam'?"),
        ({"methods": ["attention"], "heads": ["gap"]}, "Raw attention is a stream's, and no head"),
        ({"protocol": "castreem"}, "did you mean castream"),
    ],
)
def test_mistakes_are_told_in_one_sentence(model, photo, options: dict, sentence: str):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        castream.explain(model, photo, **options)


PIXELS = np.zeros((2, 40, 40, 3), np.uint8)


@pytest.mark.parametrize("images", [[PIXELS[0], PIXELS[1]], PIXELS, iter(PIXELS), ("a.png", "b.png")], ids=type)
def test_several_images_are_not_taken_for_one(model, images):
    with pytest.raises(
        TypeError,
        match=r"^explain takes one image, got (an array .*|list|tuple|.*iterator): explain_many takes several\.$",
    ):
        castream.explain(model, images)


@pytest.mark.usefixtures("unchecked_calls")
@pytest.mark.parametrize("image", [PIXELS[0], PIXELS[0, ..., 0], "a.png", Path("a.png"), Image.new("RGB", (3, 3))])
def test_one_image_is_not_taken_for_several(model, image):
    with pytest.raises(
        TypeError,
        match=r"^explain_many takes several images, got (an array .*|str|PosixPath|Image): explain takes one\.$",
    ):
        castream.explain_many(model, image)


@pytest.mark.usefixtures("unchecked_calls")
@pytest.mark.parametrize("given", [None, 3, b"a.png", {"a": PIXELS[0]}, np.zeros(5), np.array(1)])
def test_what_is_no_image_is_neither_one_nor_several(model, given):
    with pytest.raises(TypeError, match=r"^explain_many takes several images, got [^:]+\.$"):
        castream.explain_many(model, given)
    with pytest.raises((TypeError, ValueError), match=r"^An image (is a path, a PIL image or an|array must be) "):
        castream.explain(model, given)


def test_classes_by_name():
    names = tuple(imagenet_classes().values())
    assert len(names) == 1000
    assert class_number("Tiger Shark", names, 1000) == 3
    assert class_number("3", names, 1000) == 3
    with pytest.raises(ValueError, match=r"Several classes are called 'cardigan': give one of the numbers 264, 474\."):
        class_number("cardigan", names, 1000)
    with pytest.raises(ValueError, match="names of the model's classes are not known: give a number"):
        class_number("cardigan", (), 1000)
    assert class_number("cafe\u0301", ("tea", "caf\xe9"), 2) == 1  # two spellings of one name
    for number in (3, np.int64(3), np.array(3), jnp.int32(3)):
        assert class_number(number, names, 1000) == 3
    for label in (3.7, True, np.True_, [3], None):
        with pytest.raises(ValueError, match="A class is asked for by its number or its name, got "):
            class_number(label, names, 1000)
    for label in ("--1", "1_0", "3.0"):
        with pytest.raises(ValueError, match=f"There is no class called '{label}'"):
            class_number(label, names, 1000)


NUMERIC = ("1", "10", "11", "12", "2", "3", "4", "5", "6", "7", "8", "9")  # folders, in the order of their names


@pytest.mark.parametrize(
    ("label", "number", "said"),
    [
        ("2", 4, "'2' is taken for a name: the class called '2' has the number 4; the class with the number 2 is"),
        ("12", 3, "'12' is taken for a name: the class called '12' has the number 3\\.$"),
        ("0", 0, "0 is taken for a number: class 0 is called '1'\\.$"),
        (2, 2, "2 is taken for a number: class 2 is called '11'; the class called '2' is asked for by its name"),
    ],
)
def test_a_name_goes_before_a_number_and_where_they_disagree_it_is_said(label, number: int, said: str):
    with pytest.warns(UserWarning, match=said):
        assert class_number(label, NUMERIC, 12) == number


def test_digits_are_their_numbers_without_a_word():
    assert [class_number(label, tuple("0123456789"), 10) for label in ("7", 7)] == [7, 7]


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_images_of_any_mode_are_what_pillow_makes_of_them(tmp_path, mode: str):
    image = Image.fromarray(load_sample_image("china.jpg")).crop((0, 0, 50, 30)).convert(mode)
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    image.save(path)
    spec = castream.ImageSpec(24)
    expected = image.convert("RGB").resize((24, 24), Image.Resampling.BILINEAR)
    for given in (path, str(path), image):
        np.testing.assert_array_equal(read_image(given, spec).pixels, np.asarray(expected))


def test_arrays_and_orientation(tmp_path):
    pixels = load_sample_image("china.jpg")[:100, :150]
    spec = castream.ImageSpec(24)
    of_bytes, of_floats = (read_image(array, spec).pixels for array in (pixels, pixels.astype(np.float32) / 255))
    np.testing.assert_array_equal(of_bytes, of_floats)
    grey = read_image(pixels[..., 0], spec).pixels
    np.testing.assert_array_equal(grey, np.repeat(grey[..., :1], 3, axis=2))
    # As everywhere in the library, and in torchvision, an EXIF orientation is not applied, unless asked for.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    upright = read_image(np.rot90(pixels, -1), spec)
    for given in (tmp_path / "turned.png", Image.open(tmp_path / "turned.png")):
        with pytest.warns(OrientationWarning, match=r"is not applied: ImageSpec\(exif_orientation=True\)"):
            seen = read_image(given, spec)
        np.testing.assert_array_equal(seen.pixels, of_bytes)
        assert seen.orientation_ignored
        seen = read_image(given, dataclasses.replace(spec, exif_orientation=True))
        np.testing.assert_array_equal(seen.pixels, upright.pixels)
        assert not seen.orientation_ignored
    for wrong in (pixels[None], pixels[..., :2], pixels.astype(np.int32), pixels.astype(np.float32), pixels[:0]):
        with pytest.raises(ValueError, match="image"):
            read_image(wrong, spec)
    with pytest.raises(TypeError, match="got int"):
        read_image(3, spec)


def test_arrays_and_images_of_sixteen_bits_are_read_as_eight(tmp_path):
    pixels = load_sample_image("china.jpg")[:100, :150]
    spec = castream.ImageSpec(24)
    expected = read_image(pixels, spec).pixels
    np.testing.assert_array_equal(read_image(pixels.astype(np.uint16) * 257, spec).pixels, expected)
    with pytest.raises(ValueError, match=r"this one is masked: use \.filled\(value\)"):
        read_image(np.ma.masked_greater(pixels, 9), spec)
    np.testing.assert_array_equal(read_image((pixels * np.uint16(257)).astype(">u2"), spec).pixels, expected)
    grey, deep = read_image(pixels[..., 0], spec).pixels, Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    deep.save(tmp_path / "deep.png")
    for given in (deep, tmp_path / "deep.png", pixels[..., 0].astype(np.uint16) * 257):
        np.testing.assert_array_equal(read_image(given, spec).pixels, grey)


def test_pil_images_of_unknown_range_are_refused_with_the_reason():
    for values, reason in (
        (np.full((4, 4), 99, np.int32), "range is not known"),
        (np.full((4, 4), 9.0, "f4"), "lie in"),
    ):
        with pytest.raises(UnreadableImageError, match=rf"^cannot read image 'image' \(.*{reason}.*another image$"):
            read_image(Image.fromarray(values), castream.ImageSpec(24))


def test_center_crop_shows_what_the_model_sees(photo):
    seen = read_image(photo, castream.ImageSpec(56, "center_crop"))
    with Image.open(photo) as image:
        small = image.convert("RGB").resize((int(64 * 640 / 427), 64), Image.Resampling.BILINEAR)
    left = round((small.width - 56) / 2)
    np.testing.assert_array_equal(seen.pixels, np.asarray(small.crop((left, 4, left + 56, 60))))
    assert seen.picture.size == (6 * 56, 6 * 56)  # 427 pixels have room for 6 × 64
    again = np.asarray(seen.picture.resize((56, 56), Image.Resampling.BOX), np.float32)
    assert np.abs(again - seen.pixels).mean() < 8


@pytest.mark.parametrize(
    ("size", "shown"),
    [((427, 640), (640, 427)), ((30, 20), (171, 256)), ((2000, 500), (160, 640)), ((1, 300), (300, 1))],
)
def test_overlays_have_the_proportions_of_the_image(model, monkeypatch, size, shown):
    rows = np.linspace(0, 255, size[0] * size[1] * 3).reshape(*size, 3).astype(np.uint8)
    explained = castream.explain(model, rows, heads=["gap"])
    assert explained.overlay().size == shown
    sheets = []
    monkeypatch.setattr(Image.Image, "show", lambda image, title: sheets.append(image))
    explained.show()  # outside of a notebook
    assert sheets[0].size == explained.overview().size
    assert sheets[0].width > 600


def test_overlays_show_the_map_where_it_is(explanation):
    for (head, method), saliency in explanation.maps.items():
        drawn = np.asarray(explanation.overlay(head, method), np.float32)
        grey = np.asarray(explanation.picture.convert("L"), np.float32)
        red = (drawn[..., 0] - 0.4 * grey) / 0.6  # what lies over the grey picture: black for 0, light yellow for 1
        red_at = {}
        for what, position in (("most", np.argmax(saliency)), ("least", np.argmin(saliency))):
            row, column = np.unravel_index(position, saliency.shape)
            y, x = ((np.array([row, column]) + 0.5) * grey.shape / saliency.shape).astype(int)
            red_at[what] = red[y, x]
        assert red_at["most"] > 200, (head, method)
        assert red_at["least"] < 60, (head, method)


def test_attention_is_drawn_for_each_stage_and_head(explanation):
    assert explanation.attention_parts("four") == [(s, n) for s in (2, 3) for n in (None, 0, 1, 2, 3)]
    assert explanation.attention_parts("ca") == [(stage, None) for stage in range(4)]
    pictures = [
        np.asarray(explanation.attention_overlay("four", *part)) for part in explanation.attention_parts("four")
    ]
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
    # The last stage's is the map of the method of that name, but for rounding.
    last, method = (explanation.attention_overlay("ca", 3), explanation.overlay("ca", "attention"))
    assert np.abs(np.asarray(last, int) - np.asarray(method, int)).max() <= 1
    # In multiples of uniform attention, r / (1 + r).
    scores = explanation.attention["ca"][3][0]
    drawn = np.asarray(explanation.attention_overlay("ca", 3, absolute=True), int)
    expected = explanation._over_picture(scores * scores.size / (1 + scores * scores.size))
    assert np.array_equal(drawn, np.asarray(expected, int))
    assert f"at most {scores.max() * scores.size:.1f} × uniform" in explanation._repr_html_()
    for head, stage, number in (("gap", 3, None), ("four", 1, None), ("four", 2, 4), ("absent", 0, None)):
        with pytest.raises(ValueError, match="There is no attention of"):
            explanation.attention_overlay(head, stage, number)
    with pytest.raises(ValueError, match="There is no map gradcam of cls; there is attention of four"):
        explanation.overlay("cls", "gradcam")


class _Page(HTMLParser):
    """Tags, what they refer to, and the text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.references, self.text = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_data(self, data):
        self.text.append(data)


def test_html_is_self_contained(explanation):
    html = explanation._repr_html_()
    page = _Page(html)
    assert not page.tags & {"script", "link", "iframe", "object", "base", "a"}
    assert len(page.references) == 1 + len(explanation.maps) + 4 + 10
    for reference in page.references:
        head, _, data = reference.partition(",")
        assert head == "data:image/webp;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert max(image.size) == 256
    assert "http" not in html.replace("&quot;", "")
    assert "url(" not in html
    text = "".join(page.text)
    assert "flower <b>&.png" in text  # escaped: the parser gives it back whole
    for head in explanation.probabilities:
        best = explanation.predictions(head)[0]
        assert best.title in text
        assert f"{100 * best.probability:.1f}" in text


def test_saved_files(explanation, tmp_path):
    files = explanation.save(tmp_path / "new" / "folder")
    saved = json.loads((tmp_path / "new" / "folder" / "explanation.json").read_text())
    assert saved["files"] == files
    assert list(saved["heads"]) == ["gap", "four", "ca"]
    assert {head: list(parts) for head, parts in files["attention"].items()} == {
        "four": ["S2", "S2:0", "S2:1", "S2:2", "S2:3", "S3", "S3:0", "S3:1", "S3:2", "S3:3"],
        "ca": ["S0", "S1", "S2", "S3"],
    }
    overlays = [path for of_head in files["overlays"].values() for path in of_head.values()]
    paths = [*overlays, *(path for of_head in files["attention"].values() for path in of_head.values())]
    assert len(set(paths)) == len(explanation.maps) + 14
    for path in paths:
        with Image.open(path) as image:
            assert image.size == explanation.picture.size
    there = {str(path) for path in (tmp_path / "new" / "folder").iterdir()}
    assert there == {*paths, files["overview"], files["page"], str(tmp_path / "new" / "folder" / "explanation.json")}
    assert "default-src 'none'" in Path(files["page"]).read_text()


def test_heads_of_nearly_one_name_have_pictures_of_their_own(explanation, tmp_path):
    (saliency,) = [saliency for key, saliency in explanation.maps.items() if key == ("gap", "gradcam")]
    names = ("a b", "a-b", "a/b")
    other = dataclasses.replace(
        explanation,
        probabilities=dict.fromkeys(names, explanation.probabilities["gap"]),
        classes=dict.fromkeys(names, 0),
        maps={(name, "gradcam"): saliency for name in names},
        attention={},
    )
    files = [path for of_head in other.save(tmp_path)["overlays"].values() for path in of_head.values()]
    assert len({path for path in files if Path(path).is_file()}) == 3


def test_exports_keep_the_images_and_the_names_of_classes(model, explanation, photo, tmp_path):
    castream.save_pretrained(model, tmp_path / "export")
    restored = castream.load_pretrained(tmp_path / "export")
    assert restored.images == model.images
    again = castream.explain(restored, photo)
    assert list(again.maps) == list(explanation.maps)
    for key, saliency in again.maps.items():
        np.testing.assert_allclose(saliency, explanation.maps[key], **CLOSE)


def test_an_unreadable_image_is_named(model, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    for name in ("broken.jpg", "absent.jpg"):
        with pytest.raises(UnreadableImageError, match=f"cannot read image '{tmp_path / name}'"):
            castream.explain(model, tmp_path / name)


def test_a_path_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    spec = castream.ImageSpec(32)
    expected = read_image(tmp_path / "red.png", spec).pixels
    np.testing.assert_array_equal(read_image("~/red.png", spec).pixels, expected)
