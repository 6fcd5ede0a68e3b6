"""Precision of every product and convolution."""

from collections.abc import Iterator
import contextlib
import contextvars
from typing import Literal, TypeAlias

import jax
from jax import lax

# What a trunk computes in. "tensorfloat32" keeps float32 numbers, and multiplies them as NVIDIA's tensor cores do, with
# 10 bits after the point; TPUs, which have no such products, take three passes of bfloat16, and CPUs float32.
Dtype: TypeAlias = Literal["float32", "tensorfloat32", "bfloat16"]

# float32 is the reference: no TF32 on GPUs, no bfloat16 passes on TPUs. Without effect on bfloat16 operands.
PRECISION = lax.Precision.HIGHEST

_of_trunk = contextvars.ContextVar("precision", default=PRECISION)


def precision() -> lax.Precision:
    """That of the products of a trunk which is being traced."""
    return _of_trunk.get()


@contextlib.contextmanager
def computing_in(dtype: Dtype) -> Iterator[None]:
    """Around the operations of a trunk: what `precision` is, and what products that name no precision have."""
    chosen = lax.Precision.HIGH if dtype == "tensorfloat32" else PRECISION
    token = _of_trunk.set(chosen)
    try:
        # JAX's caches of traces and programs tell its own setting apart, not ours.
        with jax.default_matmul_precision(chosen.name.lower()):
            yield
    finally:
        _of_trunk.reset(token)
