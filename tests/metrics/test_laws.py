"""What must hold of any map, whatever the model says: no reference needed."""

import dataclasses

import compiled
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import slow_after

import castream_jax as castream
from castream_jax.attribution import upsample
from castream_jax.metrics import METRICS
from castream_jax.runtime.mesh import data_mesh, shard_batch

SIDE = 16
ALL_METRICS = (*METRICS, "P+", "P-")  # ROAD has laws of its own
RATES = ("AD", "AG", "AI", "I", "D", "P+", "P-")
CURVES = ("insertion_curve", "deletion_curve", "positive_curve", "negative_curve")
# Both curves against one substrate, in steps of equally many pixels.
SYMMETRIC = castream.Protocol("symmetric", insertion_start="mean", num_steps=8)


def random_case(seed: int, batch: int = 3):
    rng = np.random.default_rng(seed)
    pixels = rng.random((batch, SIDE, SIDE, 3)).astype(np.float32)
    labels = rng.integers(0, 10, batch).astype(np.int32)
    # A random order of the pixels, on a grid where 1 - m is exact.
    order = rng.permuted(np.tile(np.arange(SIDE * SIDE), (batch, 1)), axis=1)
    return pixels, labels, order.reshape(batch, SIDE, SIDE).astype(np.float32) / (SIDE * SIDE)


@pytest.fixture(scope="module", params=[1.0, 1e5], ids=["unsure", "certain"])
def model(small_model, request):
    """`certain`: logits so far apart that probabilities are exactly 0 and 1."""
    model = nnx.clone(small_model)
    model.backbone.linear.kernel.set_value(request.param * model.backbone.linear.kernel[...])
    return model


@pytest.mark.parametrize("protocol", slow_after(1, ["castream", "opticam", "torchcam"]))
def test_a_map_of_ones_changes_nothing_and_constant_maps_have_numbers(model, protocol: str):
    pixels, labels, _ = random_case(0, batch=12)
    labels[:6] = compiled.logits(model, pixels)["ca"][:6].argmax(-1)
    maps = {("ca", str(value)): np.full((12, 4, 4), value, np.float32) for value in (0, 0.5, 1)}
    scores = castream.score(model, pixels, labels, maps, protocol, metrics=ALL_METRICS)
    ones = scores["ca", "1"]
    for metric in ("AD", "AG", "AI"):
        np.testing.assert_array_equal(ones[metric], np.zeros(12))
    np.testing.assert_array_equal(ones["o"], ones["p"])
    if model.backbone.linear.kernel[...].max() > 1000 and protocol == "castream":
        assert set(np.asarray(ones["p"]).tolist()) == {0.0, 1.0}
    for values in scores.values():
        for name in (*RATES, *CURVES, "p", "o"):
            value = np.asarray(values[name])
            assert np.all((value >= 0) & (value <= 1 + 1e-6)), name  # a NaN is neither


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_curves_meet_and_mirror_each_other(small_model, seed: int):
    pixels, labels, m = random_case(seed)
    maps = {("ca", "m"): m, ("ca", "1 - m"): 1 - m, ("ca", "m squared"): m**2}
    scores = castream.score(small_model, pixels, labels, maps, SYMMETRIC, metrics=ALL_METRICS)
    of, inverted, squared = (scores["ca", name] for name in ("m", "1 - m", "m squared"))
    # The whole image ends insertion and begins deletion; the empty one begins insertion and ends deletion.
    np.testing.assert_array_equal(of["insertion_curve"][:, -1], of["p"])
    np.testing.assert_array_equal(of["deletion_curve"][:, 0], of["p"])
    np.testing.assert_array_equal(of["insertion_curve"][:, 0], of["deletion_curve"][:, -1])
    # To delete the pixels that m puts first is to be left with those that 1 - m puts first.
    np.testing.assert_allclose(of["deletion_curve"], inverted["insertion_curve"][:, ::-1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(of["D"], inverted["I"], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(of["positive_curve"], inverted["negative_curve"])
    # These metrics read the order of pixels alone.
    for name in ("I", "D", "P+", "P-"):
        np.testing.assert_allclose(of[name], squared[name], rtol=0, atol=1e-6)
    # What a mask takes from p is a drop, what it adds a gain.
    p, o = (np.asarray(of[name], np.float64) for name in ("p", "o"))
    np.testing.assert_allclose(of["AG"] * (1 - p) - of["AD"] * p, o - p, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(of["AI"], o > p)


@pytest.mark.slow
def test_equal_shares_and_equal_steps_have_equal_areas_and_others_do_not(small_model):
    pixels, labels, m = random_case(1)
    areas = {}
    for steps in (8, 20):  # 256 pixels: 8 steps of 32; 19 of 13 and one of 9
        for area in ("steps", "fractions"):
            protocol = dataclasses.replace(SYMMETRIC, num_steps=steps, area=area)
            areas[steps, area] = castream.score(
                small_model, pixels, labels, {("ca", "m"): m}, protocol, metrics=("D",)
            )["ca", "m"]["D"]
    np.testing.assert_allclose(areas[8, "steps"], areas[8, "fractions"], rtol=1e-6)
    assert np.abs(areas[20, "steps"] - areas[20, "fractions"]).max() > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "chunk"), [(1, 1), (1, 7), (2, 32), (4, 5)])
def test_neither_chunk_nor_devices_change_a_number(small_model, devices: int, chunk: int):
    # 1e-6: a convolution over another batch may sum in another order.
    pixels, labels, m = random_case(2, batch=4)
    maps = {("ca", "m"): m, ("gap", "coarse"): m[:, ::4, ::4]}
    metrics = ALL_METRICS if devices == 1 else METRICS
    expected = castream.score(small_model, pixels, labels, maps, metrics=metrics)
    if devices > 1:
        batch = shard_batch({"pixels": pixels, "labels": labels}, data_mesh(jax.devices()[:devices]))
        pixels, labels = batch["pixels"], batch["labels"]
        assert len(pixels.sharding.device_set) == devices
    scores = castream.score(small_model, pixels, labels, maps, metrics=metrics, chunk=chunk)
    for key, values in expected.items():
        for name, value in values.items():
            np.testing.assert_allclose(scores[key][name], value, rtol=0, atol=1e-6, err_msg=name)


def test_a_map_at_feature_resolution_is_that_map_enlarged(small_model):
    pixels, labels, m = random_case(4)
    coarse = m[:, ::4, ::4]
    enlarged = np.asarray(upsample(jnp.asarray(coarse), SIDE, SIDE))
    scores = castream.score(small_model, pixels, labels, {("ca", "a"): coarse, ("ca", "b"): enlarged})
    for name, value in scores["ca", "a"].items():
        np.testing.assert_array_equal(value, scores["ca", "b"][name])
