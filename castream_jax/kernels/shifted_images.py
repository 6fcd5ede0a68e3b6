"""Images as a sliding window sees them, one position of the window at a time."""

from collections.abc import Iterator

from jax import lax
from jaxtyping import Array, Float


def shifted_images(x: Float[Array, "b h w c"], size: int, stride: int) -> Iterator[Float[Array, "b h2 w2 c"]]:
    """What each of the `size` x `size` positions of the window sees of `x`, row by row; without padding."""
    batch, height, width, channels = x.shape
    for i in range(size):
        for j in range(size):
            end = (batch, i + height - size + 1, j + width - size + 1, channels)
            yield lax.slice(x, (0, i, j, 0), end, (1, stride, stride, 1))
