"""The PyTorch network that somebody names on the command line."""

from collections.abc import Mapping
import importlib
import inspect
import os
from pathlib import Path
from typing import Any

import numpy as np

from castream_jax.importing.timm_networks import open_timm
from castream_jax.plugins import import_file
from castream_jax.weights.files import read_weights
from castream_jax.weights.names import check_names

_FORMS = "timm:NAME, FILE.py:FACTORY or package.module:FACTORY"


def open_network(source: str, weights: str | os.PathLike[str] = "", num_classes: int | None = None) -> Any:
    """The `torch.nn.Module` of `source`.

    Args:
        source: `timm:NAME`, of which NAME may be `hf_hub:USER/MODEL`, or a folder that timm saved for the hub;
            `FILE.py:FACTORY` or `package.module:FACTORY`, a function without arguments.
        weights: file of a state_dict; of timm by default the published ones.
        num_classes: of timm, where they are not those of the published weights.

    Raises:
        ValueError: for another form, an unknown name, a factory that fails, or weights of another network.
        ConnectionError: if timm's weights cannot be downloaded.
        ImportError: if a package is missing.
    """
    kind, colon, name = source.partition(":")
    if kind != "timm":
        kind, colon, name = source.rpartition(":")
    if not colon or not name or not kind:
        raise ValueError(f"{source!r} names no PyTorch network: give {_FORMS}.")
    if kind == "timm":
        module = _from_timm(name, not weights, num_classes)
    elif num_classes is not None:
        raise ValueError(f"--num-classes is for timm's networks: {name} of {kind} decides itself.")
    else:
        module = _from_factory(kind, name)
    if weights:
        load_weights(module, read_weights(weights), f"{source} ({weights})")
    return module


def load_weights(module: Any, tensors: Mapping[str, np.ndarray], what: str) -> None:
    """Copies tensors into a module.

    Raises:
        ValueError: if a name is missing, extra or of another shape.
    """
    import torch  # pyright: ignore[reportMissingImports]

    own = module.state_dict()
    counted = {name for name in own if name.endswith("num_batches_tracked")} - tensors.keys()
    expected = {name: tuple(value.shape) for name, value in own.items() if name not in counted}
    given = {name: np.shape(value) for name, value in tensors.items()}
    try:
        check_names(what, expected=expected, given=given)
    except ValueError as error:
        other = [name for name in expected if name in given and expected[name] != given[name]]
        if expected.keys() != given.keys() or any(expected[name][1:] != given[name][1:] for name in other):
            raise
        raise ValueError(f"{error} For another number of classes, give --num-classes {given[other[0]][0]}.") from error
    module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}, strict=False)


def _from_timm(name: str, pretrained: bool, num_classes: int | None) -> Any:
    timm = open_timm()
    if Path(name).expanduser().is_dir():
        name = f"local-dir:{Path(name).expanduser().resolve()}"
    elif ":" not in name and not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:3]
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"timm has no network {name!r}.{hint}")
    options = {} if num_classes is None else {"num_classes": num_classes}
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:  # whatever a download may raise
        reason = " ".join(str(error).split()).rstrip(".")[:200]
        if isinstance(error, OSError) or "onnect" in type(error).__name__ + reason:
            raise ConnectionError(
                f"The weights of timm:{name} could not be downloaded ({reason}): give a file with --weights."
            ) from error
        raise ValueError(f"timm cannot make {name}: {reason}.") from error


def _from_factory(place: str, name: str) -> Any:
    try:
        if place.endswith(".py"):
            import_file(place)
            module = importlib.import_module(Path(place).stem)
        else:
            module = importlib.import_module(place)
    except (Exception, SystemExit) as error:  # whatever it may raise
        if place.endswith(".py"):  # which has been located
            raise
        raise ValueError(f"{place} cannot be imported ({_told(error)}).") from error
    factory = getattr(module, name, None)
    if not callable(factory):
        raise ValueError(f"{place} has no function {name!r} that makes a network.")
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise ValueError(
            f"{place}:{name} cannot be called without arguments ({error}): wrap it in a function."
        ) from error
    except ValueError:  # it has no signature
        pass
    try:
        network = factory()
    except (Exception, SystemExit) as error:  # whatever it may raise
        raise ValueError(f"{place}:{name} fails ({_told(error)}): it must return a torch.nn.Module.") from error
    import torch  # pyright: ignore[reportMissingImports]

    if not isinstance(network, torch.nn.Module):
        what = (
            f"the class {network.__name__}"
            if isinstance(network, type)
            else f"something of type {type(network).__name__}"
        )
        raise ValueError(f"{place}:{name} returns {what}: it must return a torch.nn.Module.")
    return network


def _told(error: BaseException) -> str:
    reason = " ".join(str(error).split()).rstrip(".")[:200]
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__
