"""Attention pooling: features summed over positions, weighted by attention.

Axes: b image, p position, n attention head, c channels of a head. The features are split over the heads,
`[b, p, n, c]`, or shared by all of them, `[b, p, c]`.
"""

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float

from castream_jax.kernels.precision import PRECISION


def textbook(attention: Float[Array, "b n p"], features: Float[Array, "b p *n c"]) -> Float[Array, "b n c"]:
    """`F^T a` of each image and head."""
    return _einsum(f"bnp,{_axes(features)}->bnc", attention, features)


@jax.custom_vjp
def on_cpu(attention: Float[Array, "b n p"], features: Float[Array, "b p *n c"]) -> Float[Array, "b n c"]:
    """The same with its derivative written out, which multiplies by the features from the left.

    The automatic one multiplies by them from the right. XLA's CPU backend then copies them transposed, which takes a
    quarter of the training step of ResNet-50.
    """
    return textbook(attention, features)


def _forward(attention: Array, features: Array) -> tuple[Array, tuple[Array, Array]]:
    return on_cpu(attention, features), (attention, features)


def _backward(residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    attention, features = residuals
    axes = _axes(features)
    return _einsum(f"{axes},bnc->bnp", features, cotangent), _einsum(f"bnp,bnc->{axes}", attention, cotangent)


on_cpu.defvjp(_forward, _backward)


def weighted_sum(attention: Float[Array, "b n p"], features: Float[Array, "b p *n c"]) -> Float[Array, "b n c"]:
    """Sum of the features over positions, weighted by attention."""
    return lax.platform_dependent(attention, features, cpu=on_cpu, default=textbook)


def _einsum(subscripts: str, *operands: Array) -> Array:
    return jnp.einsum(subscripts, *operands, precision=PRECISION)


def _axes(features: Array) -> str:
    return "bpnc" if features.ndim == 4 else "bpc"
