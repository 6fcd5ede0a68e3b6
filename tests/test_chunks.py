"""Loops over chunks, and how many images fit a memory budget."""

from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.attribution.attribute import attribute_batch
from castream_jax.attribution.chunk_size import chunk_for
from castream_jax.kernels.chunks import map_chunks, map_first_chunks


@pytest.mark.slow
@settings(max_examples=10)
@given(total=st.integers(1, 30), chunk=st.integers(1, 40), share=st.floats(0, 1))
def test_chunks_give_what_the_whole_gives(total: int, chunk: int, share: float):
    jobs = {"a": jnp.arange(total), "b": jnp.arange(2.0 * total).reshape(total, 2)}
    sizes = []

    def function(rows):
        sizes.append(rows["a"].shape[0])
        return rows["a"][:, None] + rows["b"]

    expected = np.asarray(jobs["a"][:, None] + jobs["b"])
    np.testing.assert_array_equal(map_chunks(function, jobs, chunk), expected)
    count = round(share * total)
    first = map_first_chunks(function, jobs, jnp.asarray(count), chunk)
    assert first.shape == expected.shape
    np.testing.assert_array_equal(first[:count], expected[:count])
    assert max(sizes) <= chunk


def test_only_the_first_chunks_are_computed():
    seen: list[int] = []

    def function(rows):
        jax.debug.callback(lambda row: seen.append(int(row)), rows[0], ordered=True)
        return rows

    run = jax.jit(lambda count: map_first_chunks(function, jnp.arange(12), count, 3))
    for count, expected in ((0, []), (1, [0]), (3, [0]), (4, [0, 3]), (12, [0, 3, 6, 9])):
        seen.clear()
        jax.block_until_ready(run(count))
        jax.effects_barrier()
        assert seen == expected, count


def test_the_budget_is_kept_and_used():
    """What the compiler allocates for all of Score-CAM stays near the budget that its chunk was worked out for.

    10 % more: beside a chunk, the program holds the batch's own features and scores. Half: chunks are halved.
    """
    size, budget = 32, 5 * 2**20
    backbone = castream.create_backbone("cifar_resnet20", rngs=nnx.Rngs(0))
    model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling()})
    chunk = chunk_for(model, size, size, budget)
    assert 2 <= chunk < 32
    pixels, label = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    options = {"methods": ("scorecam",), "protocol": castream.get_protocol("castream"), "chunk": chunk}
    memory = attribute_batch.lower(model, pixels, label, **options).compile().memory_analysis()
    assert budget / 2 < memory.temp_size_in_bytes < 1.1 * budget


@pytest.mark.slow
def test_more_memory_takes_more_images_up_to_what_is_fastest(small_model):
    chunks = [chunk_for(small_model, 32, 32, memory) for memory in (2**10, 2**22, 2**40)]
    assert chunks[0] == 1
    assert 1 < chunks[1] < 32
    assert chunks[2] == 32
    assert chunk_for(small_model, 64, 64, 2**22) < chunks[1]
    with pytest.raises(ValueError, match="must be positive, or 0 for the default, got -1"):
        chunk_for(small_model, 32, 32, -1)
