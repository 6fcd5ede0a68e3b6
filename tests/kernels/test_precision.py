"""What products of a trunk are computed in."""

from collections.abc import Iterator, Sequence

from flax import nnx
import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.backbones.registry import abstract_backbone
from castream_jax.kernels.precision import Dtype
from castream_jax.stream import CrossAttentionStream

HIGH, HIGHEST = jax.lax.Precision.HIGH, jax.lax.Precision.HIGHEST
SIZES = {"cifar_resnet8": 32, "convnext_tiny": 32, "efficientnet_b0": 32, "efficientnet_lite0": 64, "resnet18": 32}


class Own(castream.Backbone):
    """Layers of Flax's own, which name no precision."""

    def __init__(self, rngs: nnx.Rngs):
        super().__init__("own", num_classes=2, boundary_dims=(4,), stride=1)
        self.conv, self.classifier = nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

    def _parts(self) -> list[nnx.Conv]:
        return [self.conv]

    def classify(self, representation: jax.Array) -> jax.Array:
        return self.classifier(representation)


def products(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
    """Products and convolutions of a program and of the programs within it."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation
        for inner in core.jaxprs_in_params(equation.params):
            yield from products(inner)


def precisions(backbone: castream.Backbone, size: int) -> set[tuple[jax.lax.Precision, ...]]:
    graphdef, state = nnx.split(backbone)
    pixels = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    program = jax.make_jaxpr(lambda state, x: nnx.merge(graphdef, state).stages_and_target(x)[:2])(state, pixels)
    return {equation.params["precision"] for equation in products(program.jaxpr)}


@pytest.mark.parametrize("name", [*SIZES, "own"])
def test_all_products_of_a_trunk_are_in_the_precision_of_its_type(name: str):
    backbone = nnx.eval_shape(lambda: Own(nnx.Rngs(0))) if name == "own" else abstract_backbone(name)
    choices: Sequence[tuple[Dtype, jax.lax.Precision]] = [("float32", HIGHEST), ("tensorfloat32", HIGH)]
    for dtype, precision in (*choices, choices[0]):
        backbone.dtype = dtype
        assert precisions(backbone, SIZES.get(name, 8)) == {(precision, precision)}


def test_streams_and_classifiers_stay_in_float32():
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    stream = CrossAttentionStream(backbone.stage_dims, rngs=nnx.Rngs(0))
    backbone.dtype = "tensorfloat32"
    stages = [jnp.zeros((2, 4, 4, dim)) for dim in backbone.stage_dims]
    program = jax.make_jaxpr(lambda stages: backbone.classify(stream(stages)[0]))(stages)
    assert {equation.params["precision"] for equation in products(program.jaxpr)} == {(HIGHEST, HIGHEST)}


def test_tensorfloat32_is_float32_on_a_cpu_and_keeps_its_types():
    pixels = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    expected = backbone.stages(pixels)
    backbone.dtype = "tensorfloat32"
    found = backbone.stages(pixels)
    assert all(stage.dtype == jnp.float32 for stage in found)
    assert all(bool((a == b).all()) for a, b in zip(expected, found, strict=True))
