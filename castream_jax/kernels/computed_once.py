"""An array that XLA computes once, however many operations read it."""

import jax
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array


def textbook(x: Array) -> Array:
    """`x`."""
    return x


def on_cpu(x: Array) -> Array:
    """`x` through a call that XLA must not inline, and does not fuse across.

    `lax.optimization_barrier` would say it, but XLA's CPU backend drops it before it fuses.
    """
    with set_xla_metadata(inlineable="false"):
        return jax.jit(textbook)(x)


def computed_once(x: Array) -> Array:
    """`x`, which XLA computes once on a CPU, and not again in each operation that reads it.

    XLA fuses element-wise operations, and sums of shifted images, into whatever reads them. On a CPU, computing them
    again takes longer than the pass over memory that the fusion saves.
    """
    return lax.platform_dependent(x, cpu=on_cpu, default=textbook)
