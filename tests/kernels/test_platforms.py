"""Every kernel on every platform, and under every transformation that the package uses."""

from collections.abc import Callable
from functools import partial
import re
from typing import Any

from agreement import normal, value_and_derivatives
import jax
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from castream_jax.kernels.attention_pooling import weighted_sum
from castream_jax.kernels.computed_once import computed_once
from castream_jax.kernels.convolution import convolution
from castream_jax.kernels.gelu import gelu
from castream_jax.kernels.max_pooling import max_pool
from castream_jax.kernels.pixel_ranks import pixel_ranks
from castream_jax.kernels.product import product
from castream_jax.kernels.times_transposed import times_transposed
from castream_jax.metrics.causal import blur, blur_kernel
from castream_jax.runtime.mesh import DATA_AXIS, data_mesh

# The function, its images (along whose first axis it works row by row), its other arguments.
KERNELS: dict[str, tuple[Callable[..., jax.Array], jax.Array, tuple[jax.Array, ...]]] = {
    "attention pooling": (
        lambda x, features: weighted_sum(x, features[:1].repeat(len(x), 0)),
        normal(4, 2, 6),
        (normal(1, 6, 3, seed=2),),
    ),
    "blur": (partial(blur, kernel=blur_kernel(5, 5.0)), normal(4, 7, 6, 3), ()),
    "computed once": (computed_once, normal(4, 3), ()),
    "convolution": (partial(convolution, stride=2, padding=1), normal(4, 7, 6, 3), (normal(3, 3, 3, 4, seed=2),)),
    "depthwise": (partial(convolution, padding=1, groups=3), normal(4, 7, 6, 3), (normal(3, 3, 1, 3, seed=2),)),
    "grouped": (partial(convolution, padding=1, groups=2), normal(4, 7, 6, 4), (normal(3, 3, 2, 6, seed=2),)),
    "gelu": (gelu, normal(4, 5), ()),
    "max-pooling": (max_pool, normal(4, 7, 6, 3), ()),
    "pixel ranks": (lambda x: pixel_ranks(x).astype(x.dtype), normal(4, 3, 5), ()),
    "product": (product, normal(4, 16), (normal(16, 5, seed=2),)),
    "times transposed": (times_transposed, normal(4, 5), (normal(16, 5, seed=2),)),
}
kernels = pytest.mark.parametrize(("function", "x", "others"), KERNELS.values(), ids=list(KERNELS))


def tensors(program: str) -> set[str]:
    """Types of the values of a StableHLO program; attributes such as a padding, which are no values, left out."""
    without_attributes = re.sub(r"dense<[^>]*> : tensor<[^>]*>", "", program)
    return {size.split("x")[-1] for size in re.findall(r"tensor<([^>]*)>", without_attributes)}


@kernels
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_every_kernel_lowers_for_accelerators_without_int64(function, x, others, platform: str):
    traced = jax.jit(partial(value_and_derivatives, function)).trace(x, *others)
    found = tensors(traced.lower(lowering_platforms=(platform,)).as_text())
    assert "f32" in found
    assert "i64" not in found


def test_a_cpu_sorts_int64_keys():
    function, x, _ = KERNELS["pixel ranks"]
    assert "i64" in tensors(jax.jit(function).lower(x).as_text())


@kernels
def test_vmap_and_shard_map_change_nothing(function, x, others):
    def one_by_one(x: jax.Array, *others: Any) -> jax.Array:
        return jax.vmap(lambda row: function(row[None], *others)[0])(x)

    rows = PartitionSpec(DATA_AXIS)
    specs = (rows, *(PartitionSpec() for _ in others))
    mesh = data_mesh(jax.devices()[:2])
    # As in the package: rules of derivatives that are written out do not say along which axes their results vary.
    over_devices = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=False)
    expected = value_and_derivatives(function, x, *others)
    for transformed in (one_by_one, over_devices):
        # Float32 sums in other orders.
        for result, reference in zip(value_and_derivatives(transformed, x, *others), expected, strict=True):
            np.testing.assert_allclose(result, reference, rtol=0, atol=1e-4)
