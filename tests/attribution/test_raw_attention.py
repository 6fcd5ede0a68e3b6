"""Raw attention of every stage and attention head."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.attribution import min_max


@pytest.fixture(scope="module")
def model() -> castream.Model:
    """GAP, a class-specific stream of 4 attention heads over all stages, and a stream from S2 on."""
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    dims = backbone.stage_dims
    heads = {
        "gap": castream.GlobalAveragePooling(),
        "four": castream.CrossAttentionStream(dims, num_queries=10, num_heads=4, rngs=nnx.Rngs(1)),
        "late": castream.CrossAttentionStream(dims, 2, "proj_ca", rngs=nnx.Rngs(2)),
    }
    return castream.Model(backbone, heads)


PIXELS = np.random.default_rng(0).random((3, 16, 24, 3), np.float32)
LABELS = np.array([0, 1, 2])


def test_every_stage_equals_the_official_codes_attention(golden, golden_model):
    methods = [f"{name}:{stage}" for stage in range(4) for name in ("attention", "attention_logits")]
    pixels = golden["images"][:20].astype(np.float32) / 255
    maps = castream.attribute(golden_model, pixels, golden["labels"][:20], (*methods, "attention", "attention_logits"))
    for stage in range(4):
        logits = golden[f"attention_logits_{stage}"][:20]
        softmax = jax.nn.softmax(logits.reshape(20, -1)).reshape(logits.shape)
        # The logits lie within 1.4e-5 of the official code's, in a range that min_max enlarges.
        np.testing.assert_allclose(maps["ca", f"attention:{stage}"], min_max(softmax), rtol=0, atol=1e-4)
        np.testing.assert_allclose(maps["ca", f"attention_logits:{stage}"], min_max(logits), rtol=0, atol=1e-4)
    assert {head for head, _ in maps} == {"ca"}
    for name in ("attention", "attention_logits"):
        np.testing.assert_array_equal(maps["ca", name], maps["ca", f"{name}:3"])


def test_attention_heads_are_numbered_and_averaged(model):
    """Softmax by hand over each attention head's own channels, from each class's own token."""
    methods = ("attention", "attention:0:1", "attention:0", "attention_logits:0:1", "attention_logits:0")
    maps = castream.attribute(model, PIXELS, LABELS, methods)
    first, *_, last = model.backbone.stages(PIXELS)
    query = model.backbone.classify(last.mean((1, 2))).argmax(-1)
    token = np.asarray(model.heads["four"].cls_token[...])[query].reshape(3, 4, 4)
    logits = np.einsum("bhwnc,bnc->bnhw", np.asarray(first).reshape(3, 16, 24, 4, 4), token) / 4
    softmax = np.exp(logits) / np.exp(logits).sum((2, 3), keepdims=True)
    expected = {
        "attention:0:1": softmax[:, 1],
        "attention:0": softmax.mean(1),
        "attention_logits:0:1": logits[:, 1],
        "attention_logits:0": logits.mean(1),
    }
    for method, scores in expected.items():
        assert ("late", method) not in maps  # which reads S2 and S3
        np.testing.assert_allclose(maps["four", method], min_max(jnp.asarray(scores)), rtol=0, atol=1e-4)
    assert ("late", "attention") in maps


def test_streams_without_the_stage_or_attention_head_are_left_out(model):
    maps = castream.attribute(model, PIXELS, LABELS, ("attention:1", "attention:2", "attention:2:0", "attention:2:3"))
    heads = {method: {head for head, of_method in maps if of_method == method} for _, method in maps}
    both = {"four", "late"}
    assert heads == {"attention:1": {"four"}, "attention:2": both, "attention:2:0": both, "attention:2:3": {"four"}}


def test_what_no_stream_reads_is_refused(model):
    late = castream.Model(model.backbone, {"late": model.heads["late"]})
    gap = castream.Model(model.backbone, {"gap": model.heads["gap"]})
    for name in ("attention", "attention_logits", "inverted-attention"):
        for refused, numbers, message in (
            (gap, "", "Raw attention is a stream's, and no head of this model is one"),
            (late, ":1", r"No stream reads S1: the model's streams read S2 … S3\."),
            (model, ":4", r"No stream reads S4: the model's streams read S0 … S3\."),
            (late, ":3:1", r"There is no attention head 1: the stream's are 0 … 0\."),
            (model, ":3:4", r"There is no attention head 4: the stream's are 0 … 3\."),
            (model, ":3:0:0", r"takes the numbers stage, attention_head after its name, got 3\."),
            (model, ":-1", "what follows an attribution method's name must be numbers, as in attention:2"),
        ):
            with pytest.raises(ValueError, match=message):
                castream.attribute(refused, PIXELS, LABELS, ("gradcam", name + numbers))
