"""Each preset against its definition, rendered step by step in NumPy from its source, with the model as a black box.

Tolerance 1e-5: the rendering computes images in float64 and the model sees them rounded to float32 once.
"""

from collections.abc import Callable
import dataclasses

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

import castream_jax as castream

HEIGHT, WIDTH, BATCH = 16, 12, 3
Predict = Callable[[np.ndarray], np.ndarray]  # normalised image [H, W, 3] -> probabilities [K]


@dataclasses.dataclass
class Definition:
    """What a source says, in its own words' terms."""

    masked: str  # class of AD, AG and AI
    followed: str  # class of insertion and deletion
    steps: list[int]  # pixels moved in each step
    kernel: int | None  # side of the blur that insertion starts from; None: zeros
    multiply: str = "pixels"  # what a map multiplies
    drop_epsilon: float = 0.0
    true_fractions: bool = False


RISE_STEPS = [WIDTH] * HEIGHT  # RISE: as many pixels as a row has
DEFINITIONS = {
    "castream": Definition("label", "label", [96, 96], kernel=5),
    "castream-pred": Definition("predicted", "predicted", [96, 96], kernel=5),
    "rise": Definition("predicted", "predicted", RISE_STEPS, kernel=11),
    "opticam": Definition("label", "predicted", RISE_STEPS, kernel=11),
    # 192 pixels in 20 steps: ceil(9.6) = 10 each, the last 2.
    "torchcam": Definition(
        "predicted",
        "predicted",
        [10] * 19 + [2],
        kernel=None,
        multiply="normalised",
        drop_epsilon=1e-7,
        true_fractions=True,
    ),
}


@pytest.fixture(scope="module")
def case(small_model):
    rng = np.random.default_rng(3)
    pixels = rng.random((BATCH, HEIGHT, WIDTH, 3)).astype(np.float32)
    labels = rng.integers(0, 10, BATCH)
    # Continuous values at the image's size: no two pixels are equal, which the sources order differently.
    maps = {("gap", "fine"): rng.random((BATCH, HEIGHT, WIDTH)).astype(np.float32)}
    maps["ca", "fine"] = rng.random((BATCH, HEIGHT, WIDTH)).astype(np.float32)
    maps["ca", "coarse"] = rng.random((BATCH, 4, 3)).astype(np.float32)
    return pixels, labels, maps


def black_boxes(model) -> dict[str, Predict]:
    mean, std = np.array(model.backbone.mean), np.array(model.backbone.std)
    logits = jax.jit(lambda pixels: model(pixels))

    def predict(head: str) -> Predict:
        def of_image(normalised: np.ndarray) -> np.ndarray:
            values = np.asarray(logits(jnp.asarray((normalised * std + mean)[None], jnp.float32))[head][0], np.float64)
            return np.exp(values - values.max()) / np.exp(values - values.max()).sum()

        return of_image

    return {head: predict(head) for head in model.heads}


def blurred(normalised: np.ndarray, side: int) -> np.ndarray:
    dirac = np.zeros((side, side))
    dirac[side // 2, side // 2] = 1
    kernel = scipy.ndimage.gaussian_filter(dirac, 5)
    return np.stack([scipy.ndimage.convolve(normalised[..., c], kernel, mode="constant") for c in range(3)], -1)


def walk(predict: Predict, start: np.ndarray, finish: np.ndarray, order: np.ndarray, steps: list[int], of: int):
    """Probability of class `of` while the pixels of `start` become those of `finish`, `steps` of them at a time."""
    image, done, curve = start.copy(), 0, [predict(start)[of]]
    for size in steps:
        for pixel in order[done : done + size]:
            image[pixel // WIDTH, pixel % WIDTH] = finish[pixel // WIDTH, pixel % WIDTH]
        done += size
        curve.append(predict(image)[of])
    assert done == HEIGHT * WIDTH
    return np.array(curve)


def render(definition: Definition, predict: Predict, image: np.ndarray, saliency: np.ndarray, label: int, mean, std):
    image = image.astype(np.float64)
    normalised = (image - mean) / std
    if saliency.shape != (HEIGHT, WIDTH):  # bilinear, half-pixel centres
        zoom = HEIGHT / saliency.shape[0], WIDTH / saliency.shape[1]
        enlarged = scipy.ndimage.zoom(saliency.astype(np.float64), zoom, order=1, mode="nearest", grid_mode=True)
        saliency = np.asarray(enlarged)
    on_image = predict(normalised)
    classes = {"label": label, "predicted": int(on_image.argmax())}

    masked = saliency[..., None] * (normalised if definition.multiply == "normalised" else image)
    if definition.multiply == "pixels":
        masked = (masked - mean) / std
    of = classes[definition.masked]
    p, o = on_image[of], predict(masked)[of]
    results = {
        "p": p,
        "o": o,
        "AD": max(p - o, 0) / (p + definition.drop_epsilon),
        "AG": max(o - p, 0) / (1 - p),
        "AI": float(o > p),
    }
    order = np.argsort(-saliency.ravel(), kind="stable")
    of = classes[definition.followed]
    start = blurred(normalised, definition.kernel) if definition.kernel else np.zeros_like(normalised)
    at = np.linspace(0, 1, len(definition.steps) + 1)
    if definition.true_fractions:
        at = np.append(0, np.cumsum(definition.steps)) / (HEIGHT * WIDTH)
    results["insertion_curve"] = walk(predict, start, normalised, order, definition.steps, of)
    results["deletion_curve"] = walk(predict, normalised, np.zeros_like(normalised), order, definition.steps, of)
    results["I"] = np.trapezoid(results["insertion_curve"], at)
    results["D"] = np.trapezoid(results["deletion_curve"], at)
    return results


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_preset_is_what_its_source_defines(small_model, case, name: str):
    pixels, labels, maps = case
    mean, std = np.array(small_model.backbone.mean), np.array(small_model.backbone.std)
    scores = castream.score(small_model, pixels, labels, maps, name)
    predict = black_boxes(small_model)
    for (head, kind), saliency in maps.items():
        for image in range(BATCH):
            expected = render(
                DEFINITIONS[name], predict[head], pixels[image], saliency[image], int(labels[image]), mean, std
            )
            for metric, value in expected.items():
                if kind == "coarse" and metric in ("I", "D", "insertion_curve", "deletion_curve"):
                    continue  # an enlarged map has equal pixels at the border
                actual = scores[head, kind][metric][image]
                np.testing.assert_allclose(actual, value, rtol=0, atol=1e-5, err_msg=f"{name} {head} {kind} {metric}")


def test_every_preset_is_checked():
    assert DEFINITIONS.keys() == castream.PROTOCOLS.keys()


def test_perturbation_is_the_official_one(small_model, case):
    """Chefer et al. as CA-Stream's code takes it: `topk` of the map (or of its negative) black, accuracy, mean."""
    pixels, labels, maps = case
    mean, std = np.array(small_model.backbone.mean), np.array(small_model.backbone.std)
    predict = black_boxes(small_model)
    labels = np.array([predict["gap"]((image - mean) / std).argmax() for image in pixels])  # so that some are right
    fine = {key: saliency for key, saliency in maps.items() if key[1] == "fine"}
    scores = castream.score(small_model, pixels, labels, fine, metrics=("P+", "P-"))
    seen = set()
    for (head, kind), saliency in fine.items():
        for image in range(BATCH):
            for metric, sign in (("P+", 1), ("P-", -1)):
                hits = []
                for share in np.arange(0.1, 1, 0.1):
                    black = pixels[image].reshape(-1, 3).copy()
                    black[np.argsort(-sign * saliency[image].ravel())[: int(HEIGHT * WIDTH * share)]] = 0
                    shown = (black.reshape(HEIGHT, WIDTH, 3) - mean) / std
                    hits.append(predict[head](shown).argmax() == labels[image])
                seen |= set(hits)
                curve = {"P+": "positive_curve", "P-": "negative_curve"}[metric]
                np.testing.assert_array_equal(scores[head, kind][curve][image], hits)
                np.testing.assert_allclose(scores[head, kind][metric][image], np.mean(hits), rtol=1e-6)
    assert seen == {True, False}


def test_a_sigmoid_protocol_scores_the_class_alone(small_model, case):
    pixels, labels, maps = case
    protocol = dataclasses.replace(castream.get_protocol("castream"), probability="sigmoid")
    scores = castream.score(small_model, pixels, labels, {("ca", "fine"): maps["ca", "fine"]}, protocol)["ca", "fine"]
    rows = np.arange(BATCH)
    p = 1 / (1 + np.exp(-np.asarray(compiled.logits(small_model, pixels)["ca"], np.float64)[rows, labels]))
    masked = pixels * maps["ca", "fine"][..., None]
    o = 1 / (1 + np.exp(-np.asarray(compiled.logits(small_model, masked)["ca"], np.float64)[rows, labels]))
    np.testing.assert_allclose(scores["p"], p, rtol=0, atol=1e-5)
    np.testing.assert_allclose(scores["AD"], np.maximum(p - o, 0) / p, rtol=0, atol=1e-5)
    np.testing.assert_allclose(scores["AG"], np.maximum(o - p, 0) / (1 - p), rtol=0, atol=1e-5)
    np.testing.assert_allclose(scores["insertion_curve"][:, -1], p, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_opticam_maps_are_normalised_at_the_images_size_and_scored_as_they_are(small_model, case):
    pixels, labels, _ = case
    maps = castream.attribute(small_model, pixels, labels, protocol="opticam")
    scores = castream.score(small_model, pixels, labels, maps, "opticam", metrics=("AD",))
    for (head, method), saliency in maps.items():
        saliency = np.asarray(saliency)
        assert saliency.shape == pixels.shape[:3]
        assert saliency.min() == 0
        assert saliency.max() == 1
        shown = small_model.predict(jnp.asarray(pixels * saliency[..., None]))[head]
        np.testing.assert_allclose(scores[head, method]["o"], shown[np.arange(BATCH), labels], rtol=0, atol=1e-6)
