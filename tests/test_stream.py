"""The stream against the official code, against its equations written out, and against the paper's counts."""

import chex
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.backbones import abstract_backbone

RESNET50_DIMS = (64, 256, 512, 1024, 2048)
DIMS = (8, 12, 16)


def count(module: nnx.Module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


@pytest.fixture
def stages():
    rng = np.random.default_rng(0)
    shapes = [(3, 8, 6, 8), (3, 4, 3, 12), (3, 2, 2, 16)]
    return tuple(jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({"start_stage": 0}, 6_969_152),
        ({"start_stage": 1}, 6_952_704),
        ({"start_stage": 2}, 6_821_376),
        ({"start_stage": 3}, 6_296_576),
        ({"start_stage": 4}, 4_198_400),
        ({"block": "proj_ca"}, 18_126_272),
        ({"num_queries": 1000}, 32_590_120 - 25_557_032),
    ],
)
def test_parameter_counts_are_the_papers(options: dict, parameters: int):
    stream = nnx.eval_shape(lambda: castream.CrossAttentionStream(RESNET50_DIMS, **options, rngs=nnx.Rngs(0)))
    assert count(stream) == parameters


def test_with_backbone_the_count_is_the_papers():
    backbone = abstract_backbone("resnet50")
    stream = nnx.eval_shape(lambda: castream.CrossAttentionStream(backbone.stage_dims, rngs=nnx.Rngs(0)))
    assert count(backbone) + count(stream) == 32_526_184


def test_official_logits_and_attention(golden, golden_model):
    stages = golden_model.backbone.stages(golden["images"].astype(np.float32) / 255)
    stream = golden_model.heads["ca"]
    representation, attention = stream(stages)
    np.testing.assert_allclose(golden_model.backbone.classify(representation), golden["ca/logits"], rtol=0, atol=1e-4)
    for number, (logits, weights) in enumerate(zip(stream.attention_logits(stages), attention, strict=True)):
        expected = golden[f"attention_logits_{number}"]
        np.testing.assert_allclose(logits[:, 0], expected, rtol=0, atol=1e-4, err_msg=f"S{number}")
        softmax = jax.nn.softmax(expected.reshape(len(expected), -1)).reshape(expected.shape)
        np.testing.assert_allclose(weights[:, 0], softmax, rtol=0, atol=1e-6, err_msg=f"S{number}")


def written_out(stream: castream.CrossAttentionStream, stages) -> np.ndarray:
    """Equations 4-10, and supplementary equation 1 with keys and values of every token, in float64, image by image."""
    outputs = []
    for image in range(stages[0].shape[0]):
        query = np.asarray(stream.cls_token[...], np.float64)[0]
        for stage, attend, project in zip(
            stages[stream.start_stage :], stream.attentions, stream.projections, strict=True
        ):
            tokens = np.asarray(stage[image], np.float64).reshape(-1, stage.shape[-1])
            keys, values = tokens, tokens
            if stream.block == "proj_ca":
                keys = tokens @ np.asarray(attend.key.kernel[...]) + np.asarray(attend.key.bias[...])
                values = tokens @ np.asarray(attend.value.kernel[...]) + np.asarray(attend.value.bias[...])
            pooled = []
            for channels in np.split(np.arange(len(query)), stream.num_heads):
                logits = keys[:, channels] @ query[channels] / np.sqrt(len(query))
                attention = np.exp(logits - logits.max())
                pooled.append(values[:, channels].T @ (attention / attention.sum()))
            query = np.concatenate(pooled) @ np.asarray(project.kernel[...]) + np.asarray(project.bias[...])
        outputs.append(query)
    return np.stack(outputs)


@pytest.mark.parametrize("block", ["ca", "proj_ca"])
@pytest.mark.parametrize("num_heads", [1, 4])
@pytest.mark.parametrize("start_stage", [0, 2])
def test_every_variant_equals_its_equations(stages, block, num_heads: int, start_stage: int):
    stream = castream.CrossAttentionStream(
        DIMS, start_stage=start_stage, block=block, num_heads=num_heads, rngs=nnx.Rngs(3)
    )
    for attend in stream.attentions if block == "proj_ca" else ():
        attend.key.bias[...] = jnp.linspace(-1, 1, attend.key.bias.shape[0])  # zero at first, and would test nothing
        attend.value.bias[...] = jnp.linspace(2, 3, attend.value.bias.shape[0])
    representation, attention = stream(stages)
    np.testing.assert_allclose(representation, written_out(stream, stages), rtol=1e-4, atol=1e-5)
    assert [a.shape for a in attention] == [(3, num_heads, *s.shape[1:3]) for s in stages[start_stage:]]
    for weights in attention:
        np.testing.assert_allclose(weights.sum((2, 3)), 1, rtol=1e-5)


def test_without_bias_there_is_none(stages):
    stream = castream.CrossAttentionStream(DIMS, block="proj_ca", use_bias=False, rngs=nnx.Rngs(0))
    assert count(stream) == 8 + 8 * 12 + 12 * 16 + 16 * 16 + 2 * (8 * 8 + 12 * 12 + 16 * 16)
    assert jnp.isfinite(stream(stages)[0]).all()


def test_class_specific_stream_starts_from_the_query_of_each_image(stages):
    specific = castream.CrossAttentionStream(DIMS, num_queries=5, rngs=nnx.Rngs(4))
    shared_query = castream.CrossAttentionStream(DIMS, rngs=nnx.Rngs(0))
    shared_query.projections = specific.projections
    query = jnp.array([4, 0, 4])
    representation, _ = specific(stages, query)
    for image, number in enumerate(query):
        shared_query.cls_token[...] = specific.cls_token[...][number][None]
        np.testing.assert_allclose(representation[image], shared_query(stages)[0][image], rtol=1e-5)
    with pytest.raises(ValueError, match="has 5 queries: pass query"):
        specific(stages)


def test_model_gives_class_specific_streams_the_gap_prediction(small_model):
    stream = castream.CrossAttentionStream(small_model.backbone.stage_dims, num_queries=10, rngs=nnx.Rngs(4))
    model = castream.Model(small_model.backbone, {"gap": castream.GlobalAveragePooling(), "ca": stream})
    pixels = np.random.default_rng(0).random((5, 16, 16, 3), np.float32)
    stages = model.backbone.stages(pixels)
    predicted = model(pixels)["gap"].argmax(-1)
    np.testing.assert_array_equal(model(pixels)["ca"], model.backbone.classify(stream(stages, predicted)[0]))
    other = (predicted + 1) % 10
    assert not np.allclose(model.logits(stages, other)["ca"], model(pixels)["ca"])
    np.testing.assert_array_equal(model.logits(stages, other)["gap"], model(pixels)["gap"])


@pytest.mark.usefixtures("unchecked_calls")
def test_arguments_that_do_not_fit_are_refused(stages):
    def build(**options):
        return castream.CrossAttentionStream(DIMS, **options, rngs=nnx.Rngs(0))

    with pytest.raises(ValueError, match="start_stage must be one of 0 … 2, got 3"):
        build(start_stage=3)
    with pytest.raises(ValueError, match="block must be 'ca' or 'proj_ca', got 'self'"):
        build(block="self")
    with pytest.raises(ValueError, match="num_heads=8 must divide the channels"):
        build(num_heads=8)
    with pytest.raises(ValueError, match="dropout must be a probability, from 0 to below 1, got 1"):
        build(dropout=1.0)
    with pytest.raises(ValueError, match=r"reads stages of \[8, 12, 16\] channels from S0 on; the 2 given stages have"):
        build()(stages[1:])
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"Head 'ca' has 5 queries: a stream has 1, or one per class \(10\)"):
        castream.Model(backbone, {"ca": castream.CrossAttentionStream(DIMS, num_queries=5, rngs=nnx.Rngs(0))})


@pytest.mark.parametrize(
    ("names", "start_stage"),
    [(("base", "l1", "l2"), 0), (("l1", "l2"), 1), (("cls_stream.0", "cls_stream.1", "cls_stream.2"), 0)],
)
def test_official_names_of_both_families(names: tuple[str, ...], start_stage: int):
    rng = np.random.default_rng(0)
    dims = DIMS[start_stage:]
    weights = {"cls_token": rng.standard_normal((1, 1, dims[0])).astype(np.float32)}
    for name, dim, out in zip(names, dims, (*dims[1:], dims[-1]), strict=True):
        weights[f"{name}.to_out.1.weight"] = rng.standard_normal((out, dim)).astype(np.float32)
        weights[f"{name}.to_out.1.bias"] = rng.standard_normal(out).astype(np.float32)
    stream = castream.CrossAttentionStream(DIMS, start_stage=start_stage, rngs=nnx.Rngs(0))
    castream.load_torch_stream(stream, weights)
    np.testing.assert_array_equal(stream.cls_token[...], weights["cls_token"][0])
    np.testing.assert_array_equal(stream.projections[1].kernel[...], weights[f"{names[1]}.to_out.1.weight"].T)
    missing = weights.pop(f"{names[0]}.to_out.1.bias")
    with pytest.raises(ValueError, match=rf"missing: {names[0]}.to_out.1.bias; extra: l9"):
        castream.load_torch_stream(stream, {**weights, "l9": missing})


@pytest.mark.parametrize(
    ("style", "first"), [("resnet", "l1.to_out.1.weight"), ("convnext", "cls_stream.0.to_out.1.weight")]
)
@pytest.mark.parametrize("fields", [{"block": "proj_ca"}, {"use_bias": False, "num_queries": 4}])
def test_a_stream_goes_out_and_in_under_official_names(style, first: str, fields: dict):
    stream = castream.CrossAttentionStream(DIMS, start_stage=1, **fields, rngs=nnx.Rngs(1))
    weights = castream.torch_stream_state_dict(stream, style=style)
    assert weights["cls_token"].shape == (1, fields.get("num_queries", 1), DIMS[1])
    np.testing.assert_array_equal(weights[first], stream.projections[0].kernel[...].T)
    assert all(value.flags.c_contiguous for value in weights.values())
    copy = castream.CrossAttentionStream(DIMS, start_stage=1, **fields, rngs=nnx.Rngs(2))
    castream.load_torch_stream(copy, weights)
    chex.assert_trees_all_equal(nnx.to_pure_dict(nnx.state(copy)), nnx.to_pure_dict(nnx.state(stream)))


@pytest.mark.usefixtures("unchecked_calls")
def test_an_official_stream_comes_out_as_it_went_in(golden, golden_model):
    weights = castream.torch_stream_state_dict(golden_model.heads["ca"])
    chex.assert_trees_all_equal(
        weights, {name.removeprefix("stream/"): golden[name] for name in golden if name.startswith("stream/")}
    )
    with pytest.raises(ValueError, match="style must be 'resnet' or 'convnext', got 'vit'"):
        castream.torch_stream_state_dict(golden_model.heads["ca"], style="vit")
