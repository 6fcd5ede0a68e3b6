"""NaN is told with the image's name, and gets into no file; what was written before stays."""

# pyright: reportAttributeAccessIssue=false

import json
from pathlib import Path

from flax import nnx
import jax.numpy as jnp
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.evaluation import evaluate, explain_parts
from castream_jax.evaluation.on_device import predict_batch
from castream_jax.runtime.atomic_files import json_text, write_json


def test_the_model_says_where_its_logits_are_not_finite():
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    backbone.linear.kernel[...] = jnp.full_like(backbone.linear.kernel[...], 3e38)
    model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling()})
    seen = predict_batch(model, np.full((4, 32, 32, 3), 99, np.uint8))
    assert not np.asarray(seen.finite["gap"]).any()


@pytest.mark.parametrize("what", ["logits", "score"])
def test_an_evaluation_names_the_image_and_keeps_what_it_has(tiny_config, trained_workdir: Path, monkeypatch, what):
    config = tiny_config(evaluation={"batch_size": 10, "images_per_part": 10, "methods": ("attention",)})
    explain, calls = explain_parts.explain_batch, []

    def broken(*arguments, **options):
        seen, maps, scores = explain(*arguments, **options)
        calls.append(1)
        if len(calls) == 2 and what == "logits":
            seen = seen._replace(finite=seen.finite | {"ca": seen.finite["ca"].at[3].set(False)})
        elif len(calls) == 2:
            scores[0]["ca", "attention"]["AD"] = scores[0]["ca", "attention"]["AD"].at[3].set(jnp.nan)
        return seen, maps, scores

    monkeypatch.setattr(explain_parts, "explain_batch", broken)
    with pytest.raises(ValueError, match=r"^digits/test/\d+: the model's output is not finite .*ca.*are kept"):
        evaluate(config, trained_workdir)
    assert len(list((trained_workdir / "evaluation" / "rows").glob("part-*"))) == 4  # 40 images
    assert not (trained_workdir / "evaluation" / "summary.json").exists()
    monkeypatch.setattr(explain_parts, "explain_batch", explain)
    assert evaluate(config, trained_workdir)["images"] == 50


def test_json_has_no_word_for_nan(tmp_path: Path):
    path = tmp_path / "summary.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match=r"summary.json cannot be written: heads.ca.0.accuracy is nan, which"):
        write_json(path, {"heads": {"ca": [{"accuracy": float("nan")}]}})
    assert json.loads(path.read_text()) == {"a": 1}
    with pytest.raises(ValueError, match="it cannot be written: a value is inf"):
        json_text(float("inf"), "it")
