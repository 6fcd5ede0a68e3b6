"""Keys for modules that are built within a trace."""

from collections.abc import Mapping

from flax import nnx
import jax
from jax.core import Tracer
import jax.numpy as jnp
from jaxtyping import Array, UInt32


class _Stream(nnx.RngStream):
    """An `nnx.RngStream` that counts its keys in Python, from `start` on."""

    def __init__(self, key: Array | int, *, tag: str, start: UInt32[Array, ""] | None = None):
        super().__init__(key, tag=tag)
        if start is not None:
            self.count[...] = start
        self.drawn, self.continued = 0, start is not None

    def __call__(self) -> Array:
        number = self.count[...] + jnp.uint32(self.drawn) if self.continued else self.drawn
        self.drawn += 1
        return jax.random.fold_in(self.key[...], number)


def traced_rngs(seed: Array | int) -> nnx.Rngs:
    """The keys of `nnx.Rngs(seed)`, one by one.

    Those of Flax are counted by an array. Within a trace, Flax asks for the array's sharding each time, and JAX looks
    through all of the trace so far for an answer: ten seconds for the shapes of EfficientNet-B7, here 0.7.
    """
    rngs = nnx.Rngs(seed)
    rngs.default = _Stream(seed, tag="default")  # pyright: ignore[reportAttributeAccessIssue] - set when it is made
    return rngs


def continued_rngs(streams: Mapping[str, tuple[Array, UInt32[Array, ""]]]) -> nnx.Rngs:
    """The keys that streams of these keys, from which so many have been drawn, would give next."""
    rngs = nnx.Rngs(**{name: key for name, (key, _) in streams.items()})
    for name, (key, drawn) in streams.items():
        setattr(rngs, name, _Stream(key, tag=name, start=drawn))
    return rngs


def drawn_from(rngs: nnx.Rngs) -> dict[str, int]:
    """How many keys each stream of `continued_rngs` has given."""
    return {name: stream.drawn for name, stream in rngs.items() if isinstance(stream, _Stream)}


def is_traced(rngs: nnx.Rngs) -> bool:
    """Whether a module that is built with these keys is a part of a trace."""
    return any(isinstance(stream, _Stream) or isinstance(stream.key[...], Tracer) for _, stream in rngs.items())
