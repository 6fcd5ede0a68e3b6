"""A program's text, read: by hand, and of a program that JAX compiles here."""

import jax
import jax.numpy as jnp
import pytest

from castream_jax.ahead_of_time.hlo import (
    collectives,
    instructions,
    largest_tensors,
    layout_copies,
    padding,
    products_in_six_passes,
    wide_arrays,
)
from castream_jax.runtime.mesh import data_mesh, replicated, split_over_images

# In whole tiles of 8 × 128: 16 channels become 128, 3 images 8; a bfloat16 line of 200 numbers becomes 1,024.
TEXT = """HloModule jit_f

%fused_computation (p: f32[3,5,16]) -> f32[3,5,16] {
  %p = f32[3,5,16]{2,0,1:T(8,128)} parameter(0)
  ROOT %c = f32[3,5,16]{2,0,1:T(8,128)} copy(%p)
}

ENTRY %main (a: f32[3,5,16]) -> f32[3,5,16] {
  %a = f32[3,5,16]{2,0,1:T(8,128)} parameter(0)
  %copied = f32[3,5,16]{2,0,1:T(8,128)} copy(%a)
  %dot = f32[8,128]{1,0:T(8,128)} dot(%a, %a), operand_precision={highest,highest}
  %low = bf16[200]{0:T(1024)} convolution(%a, %a), operand_precision={highest,highest}
  %key = u64[]{:T(128)} add(%a, %a)
  %sum = (f32[7]{0:T(128)}, f32[7]{0:T(128)}) all-reduce-start(%a), to_apply=%add
  ROOT %f = f32[3,5,16]{2,0,1:T(8,128)} fusion(%copied), kind=kLoop, calls=%fused_computation
}
"""


def test_a_text_is_read_as_by_hand():
    arrays = {one.kind: one.arrays[0] for one in instructions(TEXT) if one.arrays}
    assert arrays["fusion"] == ("f32[3,5,16]", 4 * 240, 4 * 8 * 5 * 128)
    assert arrays["convolution"] == ("bf16[200]", 400, 2048)
    assert collectives(TEXT) == ["all-reduce f32[7]"]
    assert layout_copies(TEXT) == (1, 960)  # the fused one moves nothing by itself
    assert products_in_six_passes(TEXT) == (1, 2)
    assert wide_arrays(TEXT) == 1
    values = 2 * 960 + 4096 + 400 + 8 + 2 * 28
    tiles = 2 * 20480 + 4096 + 2048 + 8 + 2 * 512
    assert padding(TEXT) == pytest.approx(tiles / values)


def test_a_sum_over_devices_is_found_in_a_program_of_today():
    mesh = data_mesh()
    total = jax.jit(lambda x: x.sum(0), in_shardings=split_over_images(mesh), out_shardings=replicated(mesh))
    text = total.lower(jax.ShapeDtypeStruct((4 * mesh.size, 6), jnp.float32)).compile().as_text()
    assert collectives(text) == ["all-reduce f32[6]"]


def test_the_largest_arrays_of_a_lowered_program_are_found():
    lowered = jax.jit(lambda x: (x[:, None] * x[None], x.astype(jnp.int8))).lower(jnp.ones(300))
    largest, next_to_it = largest_tensors(lowered.as_text(), 2)
    assert largest == "300x300xf32"
    assert next_to_it in ("1x300xf32", "300x1xf32", "300xf32")  # of equals, any
