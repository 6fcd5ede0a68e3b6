"""Explanations of single images: predicted classes, saliency maps and attention, to look at."""

from castream_jax.explanation.explain import default_methods, explain, explain_many
from castream_jax.explanation.explanation import Explanation, Prediction

__all__ = ["Explanation", "Prediction", "default_methods", "explain", "explain_many"]
