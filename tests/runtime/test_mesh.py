"""Images that a user has split over devices, by whatever kind of mesh."""

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np
import pytest

import castream_jax as castream

PIXELS = np.random.default_rng(0).random((8, 32, 32, 3), np.float32)
LABELS = np.arange(8)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_labels_follow_the_images(small_model, axis_type: AxisType):
    mesh = jax.make_mesh((4,), ("x",), axis_types=(axis_type,))
    pixels = jax.device_put(PIXELS, NamedSharding(mesh, PartitionSpec("x")))
    maps = castream.attribute(small_model, pixels, LABELS)
    expected = castream.attribute(small_model, PIXELS, LABELS)
    scores = castream.score(small_model, pixels, LABELS, expected, metrics=("AD",))
    for key, saliency in expected.items():
        np.testing.assert_allclose(maps[key], saliency, rtol=0, atol=1e-4)  # sums in batches of another size
        assert scores[key]["AD"].shape == (8,)


def test_an_image_is_not_split(small_model):
    mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
    pixels = jax.device_put(PIXELS, NamedSharding(mesh, PartitionSpec(None, "x")))
    with pytest.raises(ValueError, match=r"Images are split over devices by their first axis alone, got P"):
        castream.attribute(small_model, pixels, LABELS)
