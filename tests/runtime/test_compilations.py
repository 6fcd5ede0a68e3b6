"""How many programs are compiled: a start's cost on an accelerator. And parameters drawn at once, to the same bits."""

from collections.abc import Callable

from flax import nnx
import jax
import numpy as np
import pytest
from tiers import slow_after

import castream_jax as castream
from castream_jax.runtime import built_at_once, seeds
from castream_jax.runtime.compilations import counted
from castream_jax.runtime.traced_rngs import is_traced

BUILDERS: dict[str, Callable[[nnx.Rngs], nnx.Module]] = {
    "stream": lambda rngs: castream.CrossAttentionStream((8, 8), rngs=rngs),
    "stream of all kinds": lambda rngs: castream.CrossAttentionStream((8, 16), block="proj_ca", init="gap", rngs=rngs),
    "backbone": lambda rngs: castream.create_backbone("cifar_resnet8", 7, rngs=rngs),
}


@pytest.mark.parametrize("name", slow_after(1, BUILDERS))
def test_parameters_drawn_at_once_are_those_drawn_one_by_one(name: str, monkeypatch: pytest.MonkeyPatch):
    build = BUILDERS[name]
    rngs, others = nnx.Rngs(3), nnx.Rngs(3)
    for source in (rngs, others):
        source.params()  # a key is drawn before
    with counted() as compiled:
        at_once = build(rngs)
    assert compiled == ["jit(draw_parameters)"]
    with monkeypatch.context() as patched:
        patched.setattr(built_at_once, "is_traced", lambda rngs: True)
        with counted() as compiled:
            one_by_one = build(others)
    assert "jit(draw_parameters)" not in compiled
    assert not is_traced(rngs)
    for a, b in zip(*map(jax.tree.leaves, map(nnx.state, (at_once, one_by_one))), strict=True):
        np.testing.assert_array_equal(a, b)
    # Both sources go on alike.
    np.testing.assert_array_equal(*(jax.random.key_data(source.params()) for source in (rngs, others)))


def test_a_second_one_and_weights_from_a_file_compile_nothing():
    BUILDERS["stream"](nnx.Rngs(0))
    rngs = nnx.Rngs(1)
    with counted() as compiled:
        BUILDERS["stream"](rngs)
        castream.load_backbone("cifar_resnet8", "digits", num_classes=10)
    assert compiled == []


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1, 2**32 + 5, -7])
def test_a_seed_makes_the_key_that_flax_makes(seed: int):
    keys = [jax.random.key_data(rngs.params()) for rngs in (seeds.seeded_rngs(seed), nnx.Rngs(seed))]
    np.testing.assert_array_equal(*keys)
