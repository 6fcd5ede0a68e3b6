"""`attribute`: the official code's maps, classes per image, and how scores become maps of the image's size."""

import dataclasses

import compiled
import jax.numpy as jnp
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.attribution import min_max, upsample


@pytest.mark.parametrize(("method", "official"), [("gradcam", "gradcam"), ("gradcam++", "gradcampp")])
def test_maps_equal_the_official_code(golden, golden_model, method: str, official: str):
    pixels = golden["images"].astype(np.float32) / 255
    maps = castream.attribute(golden_model, pixels, golden["labels"], (method,))
    for head in ("gap", "ca"):
        np.testing.assert_allclose(maps[head, method], golden[f"{head}/{official}/map"], rtol=0, atol=1e-4)


def test_each_image_is_explained_for_its_own_class(small_model):
    pixels = jnp.asarray(np.random.default_rng(1).random((2, 16, 16, 3)), jnp.float32)
    both = castream.attribute(small_model, pixels, jnp.array([0, 7]))
    alone = castream.attribute(small_model, pixels[1:], jnp.array([7]))
    other = castream.attribute(small_model, pixels[1:], jnp.array([8]))
    for key, saliency in alone.items():
        np.testing.assert_allclose(both[key][1], saliency[0], rtol=0, atol=1e-5)
        assert not np.allclose(other[key], saliency, atol=1e-2)


@pytest.mark.slow
def test_a_row_per_label_of_an_image_gives_each_label_its_own_map(small_model):
    """Multi-label data: the same image once for each of its classes, whatever stands around it."""
    methods = ("gradcam", "gradcam++", "cam", "layercam", "attention", "random")
    first, second = np.random.default_rng(1).random((2, 1, 16, 16, 3), np.float32)
    rows = np.concatenate([first, first, second, first])
    together = castream.attribute(small_model, rows, np.array([0, 7, 7, 3]), methods)
    for row, label in ((0, 0), (1, 7), (3, 3)):
        alone = castream.attribute(small_model, first, np.array([label]), methods)
        for key, saliency in alone.items():
            np.testing.assert_allclose(together[key][row], saliency[0], rtol=0, atol=1e-4, err_msg=f"{key} {label}")
    for (head, method), saliency in together.items():
        assert np.allclose(saliency[0], saliency[1], atol=1e-5) == (method in ("attention", "random")), (head, method)


@pytest.mark.slow
def test_predicted_class_protocol_ignores_labels(small_model):
    pixels = jnp.asarray(np.random.default_rng(1).random((3, 16, 16, 3)), jnp.float32)
    predicted = castream.attribute(small_model, pixels, jnp.zeros(3, jnp.int32), protocol="castream-pred")
    for head, logits in compiled.logits(small_model, pixels).items():
        by_label = castream.attribute(small_model, pixels, logits.argmax(-1))
        np.testing.assert_array_equal(predicted[head, "gradcam"], by_label[head, "gradcam"])


def test_constant_scores_become_zeros_not_nan():
    maps = min_max(jnp.stack([jnp.full((3, 3), 0.7), jnp.zeros((3, 3)), jnp.eye(3) * 5 + 2]))
    np.testing.assert_array_equal(maps, np.stack([np.zeros((3, 3)), np.zeros((3, 3)), np.eye(3)]))


def test_upsampling_has_half_pixel_centres():
    row = np.array([0.0, 1.0, 0.5], np.float32)
    wide = upsample(jnp.asarray(np.tile(row, (3, 1)))[None], 12, 12)[0, 0]
    centres = (np.arange(12) + 0.5) / 4 - 0.5
    np.testing.assert_allclose(wide, np.interp(centres, np.arange(3), row), atol=1e-6)


def test_maps_are_enlarged_before_they_are_scaled_where_the_protocol_says_so(small_model):
    pixels = np.random.default_rng(0).random((3, 16, 24, 3), np.float32)
    labels = np.array([3, 1, 4])
    protocol = dataclasses.replace(castream.get_protocol("castream"), map_order="resize_then_min_max")
    methods = ("cam", "gradcam", "inverted-gradcam")
    at_features = castream.attribute(small_model, pixels, labels, methods)
    enlarged = castream.attribute(small_model, pixels, labels, methods, protocol)
    for key, saliency in enlarged.items():
        assert saliency.shape == (3, 16, 24)
        assert at_features[key].shape == (3, 4, 6)
        np.testing.assert_allclose(saliency.min((1, 2)), 0, atol=1e-6)
        np.testing.assert_allclose(saliency.max((1, 2)), 1, atol=1e-6)
        # Enlarging commutes with scaling up to a scaling: it alone loses the extremes.
        scale = upsample(at_features[key], 16, 24)
        assert float(jnp.abs(scale - saliency).max()) > 0.01
        np.testing.assert_allclose(saliency, min_max(scale), rtol=0, atol=1e-4)


def test_upsampling_equals_pytorchs(torch):
    maps = np.random.default_rng(0).random((2, 7, 5), np.float32)
    expected = torch.nn.functional.interpolate(
        torch.tensor(maps)[None], (224, 161), mode="bilinear", align_corners=False
    )[0].numpy()
    np.testing.assert_allclose(upsample(jnp.asarray(maps), 224, 161), expected, atol=2e-6)


def test_arguments_that_do_not_fit_are_refused(small_model):
    pixels = jnp.zeros((2, 16, 16, 3))
    labels = jnp.array([0, 1])
    with pytest.raises(ValueError, match="no attribution method 'gradcamm': did you mean 'gradcam'"):
        castream.attribute(small_model, pixels, labels, methods=("gradcamm",))
    with pytest.raises(ValueError, match="one class per image"):
        castream.attribute(small_model, pixels, labels[:1])
    with pytest.raises(ValueError, match="labels must lie in 0 … 9, got 0 … 10"):
        castream.attribute(small_model, pixels, jnp.array([0, 10]))
    with pytest.raises(ValueError, match="Unknown protocol 'castrem': did you mean castream"):
        castream.attribute(small_model, pixels, labels, protocol="castrem")
