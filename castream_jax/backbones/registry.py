"""Name -> backbone."""

from collections.abc import Callable
import difflib
from typing import Protocol

from flax import nnx

from castream_jax.backbones.backbone import Backbone


class Builder(Protocol):
    """Builds a backbone of `num_classes` outputs with freshly initialised parameters."""

    def __call__(self, num_classes: int, rngs: nnx.Rngs) -> Backbone: ...


_BUILDERS: dict[str, tuple[Builder, int]] = {}


def register_backbone(name: str, *, num_classes: int) -> Callable[[Builder], Builder]:
    """Decorator: make `create_backbone(name)` call the decorated builder, with `num_classes` by default."""

    def register(builder: Builder) -> Builder:
        _BUILDERS[name] = (builder, num_classes)
        return builder

    return register


def backbone_names() -> tuple[str, ...]:
    """The names `create_backbone` knows."""
    return tuple(_BUILDERS)


def create_backbone(name: str, num_classes: int | None = None, *, rngs: nnx.Rngs) -> Backbone:
    """A backbone by its name, randomly initialised, in inference mode.

    Args:
        name: torchvision's name, or `cifar_resnet20` … `cifar_resnet110`.
        num_classes: outputs of the classifier; by default those of the published weights.
        rngs: source of the initial parameters.

    Raises:
        ValueError: for an unknown name; the message suggests the nearest ones.
    """
    if name not in _BUILDERS:
        near = difflib.get_close_matches(name, _BUILDERS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(_BUILDERS)}."
        raise ValueError(f"Unknown backbone {name!r}: {hint}")
    builder, default_classes = _BUILDERS[name]
    return builder(num_classes=default_classes if num_classes is None else num_classes, rngs=rngs)
