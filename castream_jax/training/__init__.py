"""Training: optimiser, step, checkpoints, logs, and the loop that joins them."""

from castream_jax.training.loop import train

__all__ = ["train"]
