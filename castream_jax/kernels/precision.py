"""Precision of every product and convolution."""

from jax import lax

# float32 is the reference: no TF32 on GPUs, no bfloat16 passes on TPUs. Without effect on bfloat16 operands.
PRECISION = lax.Precision.HIGHEST
