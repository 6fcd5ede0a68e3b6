"""CA-Stream in JAX: attention-based pooling beside a frozen CNN, and exact interpretability metrics."""

from castream_jax.attribution import attribute, scorecam_budget_error
from castream_jax.backbones import (
    Backbone,
    backbone_names,
    create_backbone,
    load_backbone,
    load_torch_state_dict,
    register_backbone,
)
from castream_jax.metrics import score
from castream_jax.model import Model
from castream_jax.pretrained import load_pretrained, save_pretrained
from castream_jax.protocol import PROTOCOLS, Protocol, get_protocol
from castream_jax.stream import (
    CrossAttentionStream,
    GlobalAveragePooling,
    load_torch_stream,
    torch_stream_state_dict,
)
from castream_jax.version import __version__

__all__ = [
    "PROTOCOLS",
    "Backbone",
    "CrossAttentionStream",
    "GlobalAveragePooling",
    "Model",
    "Protocol",
    "__version__",
    "attribute",
    "backbone_names",
    "create_backbone",
    "get_protocol",
    "load_backbone",
    "load_pretrained",
    "load_torch_state_dict",
    "load_torch_stream",
    "register_backbone",
    "save_pretrained",
    "score",
    "scorecam_budget_error",
    "torch_stream_state_dict",
]
