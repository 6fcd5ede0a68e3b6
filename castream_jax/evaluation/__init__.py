"""Whole-dataset evaluation: one row per image x head x method, and their means."""

from castream_jax.evaluation.evaluate import evaluate

__all__ = ["evaluate"]
