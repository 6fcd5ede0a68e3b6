"""A stream that starts as global average pooling."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from castream_jax.stream import CrossAttentionStream, GlobalAveragePooling

DIMS = (8, 12, 16)


@pytest.fixture(scope="module")
def stages() -> tuple[jax.Array, ...]:
    rng = np.random.default_rng(0)
    shapes = [(3, 8, 6, 8), (3, 4, 3, 12), (3, 2, 2, 16)]
    return tuple(jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(("num_heads", "num_queries"), [(1, 1), (4, 1), (1, 5), (2, 5)])
@pytest.mark.parametrize("block", ["ca", "proj_ca"])
@pytest.mark.parametrize("start_stage", [0, 1, 2])
def test_the_representation_is_the_mean(stages, start_stage: int, block, num_heads: int, num_queries: int, use_bias):
    options = {"start_stage": start_stage, "block": block, "num_heads": num_heads, "num_queries": num_queries}
    stream = CrossAttentionStream(DIMS, **options, use_bias=use_bias, init="gap", rngs=nnx.Rngs(0))
    representation, attention = stream(stages, jnp.array([0, 3, 4]) if num_queries > 1 else None)
    # 1e-6: sums of products with 1 / 4 and with the identity, in another order.
    np.testing.assert_allclose(representation, GlobalAveragePooling()(stages)[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(attention[-1], 1 / 4, rtol=0, atol=1e-7)


def test_other_parameters_are_the_papers_and_all_of_the_query_is_trained(stages):
    ours, paper = (CrossAttentionStream(DIMS, init=init, rngs=nnx.Rngs(0)) for init in ("gap", "paper"))
    np.testing.assert_array_equal(ours.cls_token[...], paper.cls_token[...])
    np.testing.assert_array_equal(ours.projections[0].kernel[...], paper.projections[0].kernel[...])
    graphdef, params = nnx.split(ours)

    def loss(params: nnx.State) -> jax.Array:
        return (nnx.merge(graphdef, params)(stages)[0] ** 3).sum()

    gradient = nnx.to_pure_dict(jax.grad(loss)(params))
    # The query departs from 0 at the first step; what comes before it follows at the second.
    assert np.abs(gradient["projections"][1]["kernel"]).min() > 0
    assert np.abs(gradient["projections"][0]["kernel"]).max() == 0


@pytest.mark.usefixtures("unchecked_calls")
def test_there_are_two_ways_to_begin():
    with pytest.raises(ValueError, match=r"init must be 'paper' or 'gap', got 'zero'\."):
        CrossAttentionStream(DIMS, init="zero", rngs=nnx.Rngs(0))
