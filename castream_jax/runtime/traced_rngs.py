"""Keys for modules that are built within a trace."""

from flax import nnx
import jax
from jaxtyping import Array


class _Stream(nnx.RngStream):
    """An `nnx.RngStream` that counts its keys in Python."""

    def __init__(self, key: Array | int, *, tag: str):
        super().__init__(key, tag=tag)
        self.drawn = 0

    def __call__(self) -> Array:
        key = jax.random.fold_in(self.key[...], self.drawn)
        self.drawn += 1
        return key


def traced_rngs(seed: Array | int) -> nnx.Rngs:
    """The keys of `nnx.Rngs(seed)`, one by one.

    Those of Flax are counted by an array. Within a trace, Flax asks for the array's sharding each time, and JAX looks
    through all of the trace so far for an answer: ten seconds for the shapes of EfficientNet-B7, here 0.7.
    """
    rngs = nnx.Rngs(seed)
    rngs.default = _Stream(seed, tag="default")  # pyright: ignore[reportAttributeAccessIssue] - set when it is made
    return rngs
