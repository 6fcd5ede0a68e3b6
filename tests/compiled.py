"""Passes of a model, each compiled as one program: operation by operation, the same takes ten times as long."""

from flax import nnx
import jax

import castream_jax as castream


def stages(backbone: castream.Backbone, pixels) -> tuple[jax.Array, ...]:
    graphdef, state = nnx.split(backbone)
    return jax.jit(lambda state, pixels: nnx.merge(graphdef, state).stages(pixels))(state, pixels)


def logits(model: castream.Model, pixels) -> dict[str, jax.Array]:
    graphdef, state = nnx.split(model)
    return jax.jit(lambda state, pixels: nnx.merge(graphdef, state)(pixels))(state, pixels)
