"""Saliency maps of every head from one trunk pass."""

from castream_jax.attribution.attribute import METHODS, attribute, saliency_maps
from castream_jax.attribution.saliency import min_max, upsample

__all__ = ["METHODS", "attribute", "min_max", "saliency_maps", "upsample"]
