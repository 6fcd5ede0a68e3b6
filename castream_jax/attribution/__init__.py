"""Saliency maps of every head from one trunk pass."""

from castream_jax.attribution import (  # noqa: F401 - they register their methods
    ablationcam,
    attention,
    baselines,
    cam,
    eigencam,
    finercam,
    gradcam,
    opticam,
    rise,
    scorecam,
    shapleycam,
    transformer_attention,
)
from castream_jax.attribution.attribute import attribute, saliency_maps
from castream_jax.attribution.inputs import Inputs
from castream_jax.attribution.methods import METHODS, register_method
from castream_jax.attribution.saliency import min_max, upsample

__all__ = [
    "METHODS",
    "Inputs",
    "attribute",
    "min_max",
    "register_method",
    "saliency_maps",
    "upsample",
]
