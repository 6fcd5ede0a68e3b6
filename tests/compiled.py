"""Passes of a model, each compiled as one program: operation by operation, the same takes ten times as long."""

from flax import nnx
import jax

import castream_jax as castream


def stages(backbone: castream.Backbone, pixels) -> tuple[jax.Array, ...]:
    graphdef, state = nnx.split(backbone)
    return jax.jit(lambda state, pixels: nnx.merge(graphdef, state).stages(pixels))(state, pixels)


def means_and_logits(backbone: castream.Backbone, pixels) -> tuple[list[jax.Array], jax.Array]:
    """Means over positions of every stage, and the logits under GAP."""
    graphdef, state = nnx.split(backbone)

    @jax.jit
    def forward(state: nnx.State, pixels: jax.Array) -> tuple[list[jax.Array], jax.Array]:
        backbone = nnx.merge(graphdef, state)
        means = [stage.mean((1, 2)) for stage in backbone.stages(pixels)]
        return means, backbone.classify(means[-1])

    return forward(state, pixels)


def logits(model: castream.Model, pixels) -> dict[str, jax.Array]:
    graphdef, state = nnx.split(model)
    return jax.jit(lambda state, pixels: nnx.merge(graphdef, state)(pixels))(state, pixels)
