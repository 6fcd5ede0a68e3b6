"""RISE (Petsiuk et al., 2018): the mean of random masks, each weighed by the class's probability on what it shows.

A mask is a grid of cells, on or off, enlarged and shifted. It is drawn from its own number, so it exists only while its
chunk is scored, is the same for all images, and can be made again for the mean.
"""

from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from castream_jax.attribution.inputs import Inputs
from castream_jax.attribution.masked_images import enlarge, interpolation_matrix, masked
from castream_jax.attribution.methods import register_method
from castream_jax.kernels.chunks import map_chunks
from castream_jax.protocol import Protocol


class _RandomMask(NamedTuple):
    """A mask, by its number, over an image."""

    image: Int[Array, " jobs"]
    mask: Int[Array, " jobs"]


@register_method("rise", chunked=True, paper="Petsiuk et al., BMVC 2018, arXiv:1806.07421")
def rise(inputs: Inputs) -> dict[str, Float[Array, "b height width"]]:
    """`sum_i p_i M_i / (N p)` over N masks with cells on with probability p (eq. 6), at the image's resolution."""
    model, pixels, protocol = inputs.model, inputs.pixels, inputs.protocol
    batch, height, width = pixels.shape[:3]
    count = protocol.rise_masks

    def run(jobs: _RandomMask) -> Float[Array, "jobs heads"]:
        shown = masked(model.backbone, pixels[jobs.image], rise_masks(jobs.mask, height, width, protocol), protocol)
        return inputs.class_probabilities(shown, jobs.image)

    job = jnp.arange(count * batch)
    scores = map_chunks(run, _RandomMask(job % batch, job // batch), inputs.chunk).reshape(count, batch, -1)

    def add(total: Array, mask: Array) -> tuple[Array, None]:
        shown = rise_masks(mask[None], height, width, protocol)[0]
        return total + scores[mask][..., None, None] * shown[None, None], None

    total, _ = lax.scan(add, jnp.zeros((batch, len(model.heads), height, width)), jnp.arange(count))
    mean = total / (count * protocol.rise_probability)
    return {head: mean[:, number] for number, head in enumerate(model.heads)}


def rise_masks(
    numbers: Int[Array, " n"], height: int, width: int, protocol: Protocol
) -> Float[Array, "n {height} {width}"]:
    """Masks by their numbers.

    `s` x `s` cells, each on with `protocol.rise_probability`, are enlarged bilinearly to `s + 1` cells of
    `ceil(height / s)` x `ceil(width / s)` pixels, and cropped to the image at an offset of less than a cell. Beyond
    the centres of the outermost cells a mask is constant (the official code mirrors it there).
    """
    cells = protocol.rise_cells
    cell_height, cell_width = -(-height // cells), -(-width // cells)
    tall = jnp.asarray(interpolation_matrix(cells, (cells + 1) * cell_height, align_corners=False))
    wide = jnp.asarray(interpolation_matrix(cells, (cells + 1) * cell_width, align_corners=False))
    seed = jax.random.key(protocol.seed)

    def draw(number: Int[Array, ""]) -> tuple[Array, Array, Array]:
        grid_key, y_key, x_key = jax.random.split(jax.random.fold_in(seed, number), 3)
        grid = jax.random.bernoulli(grid_key, protocol.rise_probability, (cells, cells)).astype(jnp.float32)
        y, x = jax.random.randint(y_key, (), 0, cell_height), jax.random.randint(x_key, (), 0, cell_width)
        return lax.dynamic_slice_in_dim(tall, y, height), grid, lax.dynamic_slice_in_dim(wide, x, width)

    return enlarge(*jax.vmap(draw)(numbers))
