"""How well a map explains a prediction (AD, AG, AI, insertion, deletion, …), where it points, and accuracy."""

from castream_jax.metrics.score import ALL_METRICS, METRICS, score, scores_of_maps

__all__ = ["ALL_METRICS", "METRICS", "score", "scores_of_maps"]
