"""A backbone from outside that does not keep its word: what it said, and what it gave."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flax import nnx
import jax.numpy as jnp
from jaxtyping import Array
import numpy as np
import pytest

import castream_jax as castream

PIXELS = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
Parts = Sequence[Callable[[Array], Array]]


class Own(castream.Backbone):
    """Says (4, 6) channels and 3 classes."""

    def __init__(
        self,
        parts: Parts,
        classify: Callable[[Array], Array] = lambda x: x[:, :3],
        normalised: Mapping[str, Any] = MappingProxyType({}),
        **modules: Any,
    ):
        super().__init__("own", num_classes=3, boundary_dims=(4, 6), stride=1, **normalised)
        self.parts, self.classifier = nnx.List(parts), classify
        for name, module in modules.items():
            setattr(self, name, module)

    def _parts(self) -> Parts:
        return list(self.parts)

    def classify(self, representation: Array) -> Array:
        return self.classifier(representation)


def widened(width: int) -> Callable[[Array], Array]:
    return lambda x: jnp.repeat(x[..., :1], width, axis=-1)


RIGHT = (widened(4), widened(6))


@pytest.mark.parametrize(
    ("parts", "classify", "said"),
    [
        ((*RIGHT, lambda x: 0 * x), lambda x: x[:, :3], "own has 3 parts and 2 boundary_dims"),
        (RIGHT[:1], lambda x: x[:, :3], "own has 1 parts and 2 boundary_dims"),
        (
            (widened(5), widened(6)),
            lambda x: x[:, :3],
            r"Part 0 of own must give features \[B, h, w, 4\] .*got \[2, 8, 8, 5\]",
        ),
        (
            (RIGHT[0], lambda x: widened(6)(x)[:1]),
            lambda x: x[:, :3],
            r"Part 1 of own must .*B = 2, .*got \[1, 8, 8, 6\]",
        ),
        ((RIGHT[0], lambda x: widened(6)(x).mean((1, 2))), lambda x: x[:, :3], r"got \[2, 6\]"),
        (RIGHT, lambda x: x, r"The classifier of own must give logits \[B, num_classes\] = \[2, 3\], got \[2, 6\]"),
        (RIGHT, lambda x: x[:, :2], r"= \[2, 3\], got \[2, 2\]"),
        (RIGHT, lambda x: x.argmax(1), r"= \[2, 3\], got \[2\]"),
    ],
)
@pytest.mark.usefixtures("unchecked_calls")
def test_features_and_logits_are_those_that_were_announced(parts: Parts, classify: Callable[[Array], Array], said: str):
    model = castream.Model(Own(parts, classify), {"gap": castream.GlobalAveragePooling()})
    for call in (lambda: model(jnp.asarray(PIXELS)), lambda: castream.attribute(model, PIXELS, np.array([0, 1]))):
        with pytest.raises(ValueError, match=said):
            call()


@pytest.mark.parametrize(
    ("normalised", "said"),
    [
        ({"mean": (0.5, 0.5)}, r"mean must be three numbers, of red, green and blue, got \(0\.5, 0\.5\)"),
        ({"mean": 0.5}, "mean must be three numbers, of red, green and blue, got 0.5"),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean must be three numbers"),
        ({"std": (0.5, 0.5, 0)}, "std must be three numbers, above zero, of red, green and blue"),
        ({"mean": (124, 116, 104), "std": (58, 57, 57)}, r"mean and std are of pixels in \[0, 1\]: divide by 255, got"),
        ({"std": (58, 57, 57)}, "divide by 255"),
        ({"mean": (-0.1, 0.5, 0.5)}, r"mean and std are of pixels in \[0, 1\], got"),
    ],
)
@pytest.mark.usefixtures("unchecked_calls")
def test_mean_and_std_are_of_pixels_between_zero_and_one(normalised: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        Own(RIGHT, normalised=normalised)
    assert Own(RIGHT, normalised={"mean": (0, 0, 0), "std": (1, 1, 1)}).std == (1.0, 1.0, 1.0)


def test_a_backbone_with_a_dropout_of_its_own_is_scored():
    backbone = Own(RIGHT, dropout=nnx.Dropout(0.5, rngs=nnx.Rngs(0)))
    model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling()})
    maps = castream.attribute(model, PIXELS, np.array([0, 1]))
    assert np.isfinite(castream.score(model, PIXELS, np.array([0, 1]), maps)["gap", "gradcam"]["AD"]).all()


def test_a_network_in_flax_becomes_one_as_the_page_says():
    page = (Path(__file__).parents[2] / "docs" / "extend.md").read_text()
    (snippet,) = (text.partition("```")[0] for text in page.split("```python\n")[1:] if "class NetBackbone" in text)
    names: dict[str, Any] = {"__name__": "snippet"}
    exec(snippet, names)  # compares the logits itself
    model = names["model"]
    stream = castream.CrossAttentionStream(model.backbone.stage_dims, rngs=nnx.Rngs(1))
    with_stream = castream.Model(model.backbone, {"gap": castream.GlobalAveragePooling(), "ca": stream})
    maps = castream.attribute(with_stream, names["pixels"], np.array([1, 2]), ("gradcam", "attention"))
    assert maps["ca", "attention"].shape == (2, 7, 7)


@pytest.mark.usefixtures("unchecked_calls")
def test_a_bare_network_is_told_what_is_missing():
    linear = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"needs a castream.Backbone, got a Linear, whose feature maps are not known"):
        castream.Model(linear, {"gap": castream.GlobalAveragePooling()})  # pyright: ignore[reportArgumentType]
