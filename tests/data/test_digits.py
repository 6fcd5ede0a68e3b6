# Every record here has a box:
# pyright: reportTypedDictNotRequiredAccess=false

from typing import Any

import numpy as np
from PIL import Image
import pytest
from sklearn.datasets import load_digits

from castream_jax.data import CanvasDigits
from castream_jax.data.digits import _paste_fragment


def test_splits_divide_all_digits_every_fifth_to_the_test():
    train, test = CanvasDigits("train"), CanvasDigits("test")
    assert (len(train), len(test)) == (1438, 359)
    assert train.class_names == test.class_names == tuple("0123456789")
    digits: Any = load_digits()
    labels = digits.target
    assert [int(test[i]["label"]) for i in range(40)] == labels[4:200:5].tolist()
    assert [int(train[i]["label"]) for i in range(40)] == [int(labels[i]) for i in range(50) if i % 5 != 4]


def test_record_is_a_function_of_split_index_and_seed():
    first, second = CanvasDigits("test", seed=3), CanvasDigits("test", seed=3)
    second[7]  # reading others in between changes nothing
    for key in ("pixels", "box", "label"):
        np.testing.assert_array_equal(first[11][key], second[11][key])
    assert not np.array_equal(first[11]["pixels"], CanvasDigits("test", seed=4)[11]["pixels"])
    assert not np.array_equal(first[11]["pixels"], first[12]["pixels"])


def test_more_canvases_per_digit_append_records_and_change_none():
    once, thrice = CanvasDigits("test"), CanvasDigits("test", canvases_per_digit=3)
    assert len(thrice) == 3 * len(once)
    np.testing.assert_array_equal(once[5]["pixels"], thrice[5]["pixels"])
    again = thrice[5 + len(once)]
    assert again["label"] == once[5]["label"]
    assert not np.array_equal(again["pixels"], once[5]["pixels"])


@pytest.mark.parametrize("size", [64, 96])
def test_record_has_the_declared_form(size):
    source = CanvasDigits("train", canvas_size=size)
    for index in range(50):
        record = source[index]
        assert record["pixels"].shape == (size, size, 3)
        assert record["pixels"].dtype == np.uint8
        assert record["label"].dtype == np.int32
        assert record["index"] == index
        x0, y0, x1, y1 = record["box"]
        assert record["box"].dtype == np.float32
        assert 0 <= x0 < x1 <= size
        assert 0 <= y0 < y1 <= size
        assert 18 * size / 64 <= y1 - y0 <= 37 * size / 64  # a digit of 22 to 34 px, tightly boxed


def test_box_is_tight_around_a_digit_that_stands_out():
    """The background is grainy: only the digit, drawn last, has one exact colour."""
    source = CanvasDigits("test")
    margins = []
    for index in range(60):
        record = source[index]
        pixels = record["pixels"]
        x0, y0, x1, y1 = record["box"].astype(int)
        colours, counts = np.unique(pixels[y0:y1, x0:x1].reshape(-1, 3), axis=0, return_counts=True)
        ink = colours[counts.argmax()]
        rows, columns = np.nonzero((pixels == ink).all(-1))
        margins.append([columns.min() - x0, rows.min() - y0, x1 - 1 - columns.max(), y1 - 1 - rows.max()])
        # 60 grey levels in full light, which is dimmed to 0.4 of it at the least.
        assert (ink - np.median(pixels, (0, 1))) @ [0.299, 0.587, 0.114] > 24
    assert np.min(margins) >= 0
    assert np.max(margins) <= 6  # a faint end of a stroke is in the box, but not of the exact colour
    assert (np.median(margins, axis=0) <= 1).all()


def test_other_digits_appear_only_as_thirds_that_stay_clear_of_the_whole_one():
    glyph = load_digits(return_X_y=True)[0][10].reshape(8, 8)  # a round zero: 5 of 8 columns wide
    keep_clear = (20, 20, 40, 44)
    shown = 0
    for seed in range(60):
        canvas = Image.new("RGB", (64, 64))
        mask = (glyph * (255 / 16)).astype(np.uint8)
        _paste_fragment(np.random.default_rng(seed), canvas, mask, keep_clear=keep_clear, backdrop=np.zeros(3))
        assert canvas.crop(keep_clear).getbbox() is None
        x0, y0, x1, y1 = canvas.getbbox() or (0, 0, 0, 0)
        assert min(x1 - x0, y1 - y0) <= 0.38 * 34 + 1
        shown += x1 > x0
    assert shown > 30


def test_names_are_stable_identifiers():
    assert CanvasDigits("test").name(12) == "digits/test/0012"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"split": "val"}, "unknown split 'val' of the digits; choose one of train, test"),
        ({"split": "train", "canvases_per_digit": 0}, "canvases_per_digit is 0; at least one is needed"),
        ({"split": "train", "canvas_size": 16}, "canvas_size is 16; digits need at least 32 pixels to be legible"),
    ],
)
def test_bad_arguments_are_explained(arguments, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        CanvasDigits(**arguments)


def test_index_beyond_the_end_is_refused():
    with pytest.raises(IndexError, match="record 359 is not one of 0 to 358"):
        CanvasDigits("test")[359]
