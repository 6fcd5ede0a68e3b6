"""How well a map explains a prediction: AD, AG, AI, insertion, deletion; and accuracy."""

from castream_jax.metrics.score import score, scores_of_maps

METRICS = ("AD", "AG", "AI", "I", "D")

__all__ = ["METRICS", "score", "scores_of_maps"]
