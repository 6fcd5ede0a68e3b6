"""Name -> backbone."""

from collections.abc import Callable
import difflib
from typing import NamedTuple, TypeVar

from flax import nnx
import numpy as np

from castream_jax.backbones.backbone import Backbone, Taps
from castream_jax.plugins import load_plugins
from castream_jax.runtime.built_at_once import built_at_once
from castream_jax.runtime.traced_rngs import traced_rngs


class Architecture(NamedTuple):
    """An entry of the registry.

    Attributes:
        builder: `(num_classes=…, rngs=…, taps=…) -> Backbone` with freshly initialised parameters.
        num_classes: outputs of the published weights.
        input_size: side, in pixels, of the images that the published accuracy was taken on.
    """

    builder: Callable[..., Backbone]
    num_classes: int
    input_size: int


_ARCHITECTURES: dict[str, Architecture] = {}

_Build = TypeVar("_Build", bound=Callable[..., Backbone])


def register_backbone(name: str, *, num_classes: int, input_size: int = 224) -> Callable[[_Build], _Build]:
    """Decorator: make `create_backbone(name)` call `build(num_classes=…, rngs=…)`, and `taps=…` where they are given.

    Args:
        name: the new name.
        num_classes, input_size: see `Architecture`.

    Raises:
        ValueError: if the name is taken.
    """

    def register(build: _Build) -> _Build:
        if name in _ARCHITECTURES:
            raise ValueError(f"There is already a backbone {name!r}: choose another name.")
        _ARCHITECTURES[name] = Architecture(build, num_classes, input_size)
        return build

    return register


def backbone_names() -> tuple[str, ...]:
    """The names `create_backbone` knows, those of plugins included."""
    load_plugins("castream_jax.backbones")
    return tuple(_ARCHITECTURES)


def get_architecture(name: str) -> Architecture:
    """The registry's entry.

    Raises:
        ValueError: for an unknown name; the message suggests the nearest ones.
    """
    if not isinstance(name, str):
        raise ValueError(f"A backbone is asked for by its name, such as resnet50, got {name!r}.")
    if name not in _ARCHITECTURES:
        load_plugins("castream_jax.backbones")
    if name not in _ARCHITECTURES:
        near = difflib.get_close_matches(name, _ARCHITECTURES, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(_ARCHITECTURES)}."
        raise ValueError(f"Unknown backbone {name!r}: {hint}")
    return _ARCHITECTURES[name]


def check_registered(backbone: Backbone) -> None:
    """Raises a ValueError unless a backbone of this name can be made again, as whoever loads it from a file must."""
    if backbone.name not in backbone_names():
        raise ValueError(
            f"There is no backbone {backbone.name!r} to load such a file with: register what builds it, with "
            f"castream.register_backbone({backbone.name!r}, num_classes={backbone.num_classes}), see docs/extend.md."
        )


def create_backbone(name: str, num_classes: int | None = None, *, rngs: nnx.Rngs, taps: Taps | None = None) -> Backbone:
    """A backbone by its name, randomly initialised, in inference mode.

    Args:
        name: torchvision's name, or `cifar_resnet20` … `cifar_resnet110`.
        num_classes: outputs of the classifier; by default those of the published weights.
        rngs: source of the initial parameters.
        taps: which feature maps are the stages S0 … SL that a stream reads, see `Backbone`: by default, those that
            the official code reads.

    Raises:
        ValueError: for an unknown name, with the nearest known ones, impossible taps, or fewer classes than one.
    """
    architecture = get_architecture(name)
    if not isinstance(rngs, nnx.Rngs):
        raise ValueError(f"rngs must be a flax.nnx.Rngs, such as nnx.Rngs(0), got {rngs!r}.")
    options = {}
    if taps is not None and taps != "official":
        options["taps"] = tuple(taps) if isinstance(taps, list) else taps
    if num_classes is None:
        num_classes = architecture.num_classes
    if isinstance(num_classes, bool) or not isinstance(num_classes, int | np.integer):
        raise ValueError(f"num_classes must be a whole number, got {num_classes!r}.")
    if num_classes < 1:
        raise ValueError(f"num_classes must be positive, got {num_classes}.")
    backbone = built_at_once(architecture.builder, rngs, num_classes=int(num_classes), **options)
    backbone.eval()
    return backbone


def abstract_backbone(name: str, num_classes: int | None = None, *, taps: Taps | None = None) -> Backbone:
    """A backbone without values, a `jax.ShapeDtypeStruct` for each. Arguments and errors as of `create_backbone`."""
    return nnx.eval_shape(lambda: create_backbone(name, num_classes, rngs=traced_rngs(0), taps=taps))
