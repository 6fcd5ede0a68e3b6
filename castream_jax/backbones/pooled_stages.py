"""Stages of a network that pools them in a way of its own: a transformer's class token."""

from collections.abc import Iterable
from typing import Any

import jax
from jaxtyping import Array, Float


@jax.tree_util.register_pytree_node_class
class PooledStages(tuple):
    """S0 … SL, and `pooled`, the vector `[B, d_L]` that the network itself makes for its classifier.

    Of a network without such a vector, the stages are a plain tuple, and it classifies the mean of SL.
    """

    pooled: Any

    def __new__(cls, stages: Iterable[Any], pooled: Any) -> "PooledStages":
        self = super().__new__(cls, stages)
        self.pooled = pooled
        return self

    def tree_flatten(self) -> tuple[tuple[Any, ...], None]:
        """What JAX maps over."""
        return (*self, self.pooled), None

    @classmethod
    def tree_unflatten(cls, _: None, children: tuple[Any, ...]) -> "PooledStages":
        """The inverse."""
        return cls(children[:-1], children[-1])


def own_pooling(stages: Any) -> Float[Array, "b d"]:
    """The representation that the network was trained with: its own vector, or the mean of SL over positions."""
    return stages.pooled if isinstance(stages, PooledStages) else stages[-1].mean((1, 2))


def with_last(stages: Any, last: Any) -> Any:
    """The stages with another SL and, where `last` is both, another vector of the network's own."""
    if isinstance(last, tuple):
        return PooledStages((*stages[:-1], last[0]), last[1])
    return (
        PooledStages((*stages[:-1], last), stages.pooled) if isinstance(stages, PooledStages) else (*stages[:-1], last)
    )
