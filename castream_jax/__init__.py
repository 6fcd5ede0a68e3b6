"""CA-Stream in JAX: attention-based pooling beside a frozen CNN, and exact interpretability metrics."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from castream_jax.attribution import attribute, scorecam_budget_error
    from castream_jax.backbones import (
        Backbone,
        backbone_names,
        create_backbone,
        load_backbone,
        load_torch_state_dict,
        register_backbone,
    )
    from castream_jax.explanation import Explanation, explain
    from castream_jax.metrics import score
    from castream_jax.model import ImageSpec, Model
    from castream_jax.pretrained import load_pretrained, save_pretrained
    from castream_jax.protocol import PROTOCOLS, Protocol, get_protocol
    from castream_jax.stream import (
        CrossAttentionStream,
        GlobalAveragePooling,
        load_torch_stream,
        torch_stream_state_dict,
    )
    from castream_jax.version import __version__

# Where each public name is defined. It is imported when it is first asked for: `castream --help` does not wait for JAX.
_MODULES = {
    "attribution": ("attribute", "scorecam_budget_error"),
    "backbones": (
        *("Backbone", "backbone_names", "create_backbone", "load_backbone", "load_torch_state_dict"),
        "register_backbone",
    ),
    "explanation": ("Explanation", "explain"),
    "metrics": ("score",),
    "model": ("ImageSpec", "Model"),
    "pretrained": ("load_pretrained", "save_pretrained"),
    "protocol": ("PROTOCOLS", "Protocol", "get_protocol"),
    "stream": ("CrossAttentionStream", "GlobalAveragePooling", "load_torch_stream", "torch_stream_state_dict"),
    "version": ("__version__",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "PROTOCOLS",
    "Backbone",
    "CrossAttentionStream",
    "Explanation",
    "GlobalAveragePooling",
    "ImageSpec",
    "Model",
    "Protocol",
    "__version__",
    "attribute",
    "backbone_names",
    "create_backbone",
    "explain",
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


def __getattr__(name: str) -> Any:
    """A public name, or a submodule, imported now."""
    if name in _MODULE_OF:
        value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value
    if not name.startswith("_"):
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
