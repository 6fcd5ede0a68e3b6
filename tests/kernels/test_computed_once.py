"""What several operations read is computed once on a CPU."""

from collections.abc import Callable
from functools import partial

from agreement import assert_forms_agree, normal
import jax
import jax.numpy as jnp

from castream_jax.kernels import computed_once as kernel_file
from castream_jax.kernels.computed_once import computed_once


def test_it_is_the_identity():
    assert_forms_agree(computed_once, kernel_file.textbook, normal(3, 5), atol=0)


def test_what_several_operations_read_is_computed_once():
    def read_twice(x: jax.Array, keep: Callable[[jax.Array], jax.Array]) -> tuple[jax.Array, jax.Array]:
        y = keep(jnp.maximum(x, 0))
        return y.sum(0), y[::2] * y[1::2]

    times = []
    for keep in (computed_once, kernel_file.textbook):
        hlo = jax.jit(partial(read_twice, keep=keep)).lower(normal(64, 64)).compile().as_text()
        times.append(hlo.count(" maximum("))
    assert times[0] == 1 < times[1], "XLA no longer does what `computed_once` is there for"
