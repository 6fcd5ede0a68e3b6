"""All five metrics against the official code, and the laws they must obey."""

from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import slow_after

import castream_jax as castream
from castream_jax.backbones import Backbone
from castream_jax.metrics import METRICS
from castream_jax.runtime.mesh import data_mesh, replicate, shard_batch

CURVES = {"I": "insertion_curve", "D": "deletion_curve"}


METHODS = {"gradcam": "gradcam", "gradcam++": "gradcampp", "scorecam": "scorecam"}  # here: in the reference arrays


@pytest.fixture(scope="module")
def scored(golden, golden_model):
    pixels = golden["images"].astype(np.float32) / 255
    maps = castream.attribute(golden_model, pixels, golden["labels"], tuple(METHODS))
    return jax.device_get((maps, castream.score(golden_model, pixels, golden["labels"], maps)))


@pytest.mark.parametrize("head", ["gap", "ca"])
@pytest.mark.parametrize("method", METHODS)
def test_ad_ag_ai_equal_the_official_code_per_image(golden, scored, head: str, method: str):
    for metric in ("AD", "AG", "AI"):
        expected = golden[f"{head}/{METHODS[method]}/{metric}"]
        np.testing.assert_allclose(scored[1][head, method][metric], expected, rtol=0, atol=1e-3, err_msg=metric)


def images_where_ties_decide(saliency, pixels_per_step: int = 256) -> np.ndarray:
    """Images whose order at some step's threshold is decided among equal pixels.

    The official order of equals is that of an unstable sort: there, another implementation may differ. Many maps have
    large flat regions: zeros after the rectifier, and what bilinear interpolation repeats at the border.
    """
    large = np.asarray(jax.image.resize(saliency, (len(saliency), 32, 32), "bilinear"))
    falling = -np.sort(-large.reshape(len(large), -1), axis=1)
    at = np.arange(pixels_per_step, 1024, pixels_per_step)
    return np.any(np.abs(falling[:, at - 1] - falling[:, at]) < 1e-6, axis=1)


@pytest.mark.parametrize("head", ["gap", "ca"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("metric", ["I", "D"])
def test_insertion_and_deletion_equal_the_official_code(golden, scored, head: str, method: str, metric: str):
    maps, scores = scored
    ours, official = scores[head, method], f"{head}/{METHODS[method]}/"
    tied = images_where_ties_decide(maps[head, method])
    assert (~tied).sum() > 100  # the comparison below must not run empty
    curve, expected = np.asarray(ours[CURVES[metric]]), golden[official + CURVES[metric]]
    np.testing.assert_allclose(curve[~tied], expected[~tied], rtol=0, atol=1e-4)
    np.testing.assert_allclose(ours[metric][~tied], golden[official + metric][~tied], rtol=0, atol=1e-4)
    assert abs(float(ours[metric].mean()) - golden[official + metric].mean()) < 0.001


def random_case(seed: int, batch: int = 3):
    rng = np.random.default_rng(seed)
    pixels = jnp.asarray(rng.random((batch, 16, 16, 3)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 10, batch), jnp.int32)
    maps = {("gap", "a"): jnp.asarray(rng.random((batch, 4, 4)), jnp.float32)}
    maps["ca", "b"] = jnp.asarray(rng.random((batch, 16, 16)), jnp.float32)
    return pixels, labels, maps


@pytest.mark.slow
@settings(max_examples=15)
@given(seed=st.integers(0, 10**6))
def test_laws(small_model, seed: int):
    pixels, labels, maps = random_case(seed)
    probabilities = small_model.predict(pixels)
    scores = castream.score(small_model, pixels, labels, maps)
    for (head, _), values in scores.items():
        for metric in ("AD", "AG", "AI", "I", "D"):
            assert np.all((np.asarray(values[metric]) >= 0) & (np.asarray(values[metric]) <= 1)), metric
        p = probabilities[head][jnp.arange(3), labels]
        np.testing.assert_allclose(values["insertion_curve"][:, -1], p, rtol=1e-4)
        np.testing.assert_allclose(values["deletion_curve"][:, 0], p, rtol=1e-4)
    # The two ends that no map decides are the same for every map of a head.
    same_head = castream.score(
        small_model, pixels, labels, {("ca", "a"): maps["gap", "a"], ("ca", "b"): maps["ca", "b"]}
    )
    a, b = same_head["ca", "a"], same_head["ca", "b"]
    np.testing.assert_array_equal(a["insertion_curve"][:, 0], b["insertion_curve"][:, 0])
    np.testing.assert_array_equal(a["deletion_curve"][:, -1], b["deletion_curve"][:, -1])


@pytest.mark.slow
@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), order=st.permutations(range(3)))
def test_scores_do_not_depend_on_batch_order_or_company(small_model, seed: int, order):
    pixels, labels, maps = random_case(seed)
    order = jnp.asarray(order)
    scores = castream.score(small_model, pixels, labels, maps)
    shuffled = castream.score(small_model, pixels[order], labels[order], {k: v[order] for k, v in maps.items()})
    alone = castream.score(small_model, pixels[:1], labels[:1], {("ca", "b"): maps["ca", "b"][:1]})
    for key, values in scores.items():
        for name, value in values.items():
            np.testing.assert_allclose(shuffled[key][name], value[order], rtol=0, atol=1e-5, err_msg=name)
    for name, value in alone["ca", "b"].items():
        np.testing.assert_allclose(value[0], scores["ca", "b"][name][0], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4])
def test_scores_are_the_same_on_several_devices_and_need_no_gathering(small_model, devices: int):
    # 5e-6 absolute, on maps that min-max enlarges: products over fewer images are summed in another order.
    from castream_jax.evaluation.on_device import explain_batch

    rng = np.random.default_rng(0)
    batch = {"pixels": rng.integers(0, 256, (8, 16, 16, 3), np.uint8), "label": rng.integers(0, 10, 8).astype(np.int32)}
    protocol = castream.get_protocol("castream")
    options = {"methods": ("gradcam", "attention"), "protocols": (protocol,), "chunk": 32}
    one = explain_batch(small_model, batch["pixels"], batch["label"], **options)
    mesh = data_mesh(jax.devices()[:devices])
    graphdef, state = nnx.split(small_model)
    sharded = shard_batch(batch, mesh)
    inputs = nnx.merge(graphdef, replicate(state, mesh)), sharded["pixels"], sharded["label"]
    several = explain_batch(*inputs, **options)
    for ours, reference in zip(jax.tree.leaves(several), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(ours, reference, rtol=0, atol=5e-6)
    hlo = explain_batch.lower(*inputs, **options).compile().as_text() or ""
    assert "convolution" in hlo
    assert "all-gather" not in hlo
    assert "all-reduce" not in hlo


def test_arguments_that_do_not_fit_are_refused(small_model):
    pixels, labels, maps = random_case(0)
    with pytest.raises(ValueError, match="There is no head 'cb'"):
        castream.score(small_model, pixels, labels, {("cb", "gradcam"): maps["gap", "a"]})
    with pytest.raises(ValueError, match=r"must be \[B, h, w\] with B = 3, got \[2, 4, 4\]"):
        castream.score(small_model, pixels, labels, {("ca", "gradcam"): maps["gap", "a"][:2]})
    with pytest.raises(
        ValueError, match=r"There is no metric 'A': did you mean 'AI'\? choose from AD, AG, AI, I, D, P"
    ):
        castream.score(small_model, pixels, labels, maps, metrics=("AD", "A"))
    with pytest.raises(ValueError, match="No metric was given"):
        castream.score(small_model, pixels, labels, maps, metrics=())
    assert castream.score(small_model, pixels, labels, {}) == {}


@pytest.mark.parametrize(
    ("metrics", "protocol", "shared", "per_map", "others"),
    slow_after(
        3,
        [
            (("AD",), "castream", 0, 1, {"p", "o"}),
            (("I",), "castream", 1, 1, {"p", "insertion_curve"}),
            (METRICS, "castream", 2, 3, {"p", "o", "insertion_curve", "deletion_curve"}),
            (("AI", "AG", "AD"), "castream", 0, 1, {"p", "o"}),
            (("D",), "castream", 1, 1, {"p", "deletion_curve"}),
            (("P-", "P+"), "castream", 0, 18, {"p", "positive_curve", "negative_curve"}),
            # 256 pixels in at most 20 steps: 13 each. Both curves of torch-cam share the empty image.
            (("I", "D"), "torchcam", 1, 38, {"p", "insertion_curve", "deletion_curve"}),
        ],
    ),
)
def test_only_what_the_metrics_need_is_computed(
    small_model, monkeypatch, metrics, protocol: str, shared: int, per_map: int, others: set[str]
):
    pixels, labels, maps = random_case(0)
    passes = []
    stages = Backbone.stages

    def counting(self, pixels, *rest):
        passes.append(pixels.shape[0])
        return stages(self, pixels, *rest)

    monkeypatch.setattr(Backbone, "stages", counting)
    chunk = 10_000 + len(metrics)  # all at once; and traced anew, as no other test has this chunk
    scores = castream.score(small_model, pixels, labels, maps, protocol, metrics=metrics, chunk=chunk)
    assert passes == [3, 3 * (shared + per_map * len(maps))]
    for values in scores.values():
        assert values.keys() == set(metrics) | others
