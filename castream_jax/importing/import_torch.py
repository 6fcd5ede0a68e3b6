"""`castream.import_torch`: a classifier of PyTorch as a frozen trunk."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

from castream_jax.backbones.imported import Boundary as SavedBoundary
from castream_jax.backbones.imported import ImportedBackbone, Program, Trunk
from castream_jax.importing.agreement import check_against_torch
from castream_jax.importing.boundaries import find_attention, find_boundaries
from castream_jax.importing.capture import capture
from castream_jax.importing.found_taps import found_taps, one_pixel_hint
from castream_jax.importing.given import check_module, check_names, run_once
from castream_jax.importing.network import Network
from castream_jax.importing.timm_networks import describe_timm, is_timm
from castream_jax.importing.trunk_programs import Functions, export_programs
from castream_jax.version import installed_version

_PACKAGES = ("torch", "torchax", "timm", "jax")


def import_torch(
    module: Any,
    *,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    taps: Sequence[str] | None = None,
    classifier: str | None = None,
    class_names: Sequence[str] = (),
    name: str | None = None,
) -> ImportedBackbone:
    """A PyTorch network as a trunk, which needs PyTorch no more; `castream.save_backbone` keeps it.

    The network is put into inference mode. What comes out is compared with it, on random and on smooth images, and
    refused where logits or maps differ by more than 1e-4 of their spread.

    Args:
        module: a `torch.nn.Module`, from images `[B, 3, H, W]` to logits `[B, K]`.
        image_size: side of the images, in pixels; a network of timm knows its own, and mean and std.
        mean, std: per-channel normalisation of pixels in [0, 1].
        taps: sub-modules whose outputs are S0, S1, …, by their names in the order of the computation. The last one must
            be what is averaged before the classifier, unless the network is one of timm, which knows. By default, of
            each resolution the last map.
        classifier: sub-module that is given the average of the last tap, or None where this need not be said: then the
            network after the last tap is the classifier.
        class_names: name of class k at position k.
        name: shown in reports; by default that of the module's class.

    Raises:
        ImportError: if PyTorch or torchax is not installed.
        ValueError: if the module is no classifier of images with maps, cannot be exported, or differs after all.
    """
    check_module(module)
    check_names(module, taps, classifier, class_names)
    if is_timm(module):
        if classifier is not None:
            raise ValueError("classifier is of networks that do not describe themselves: timm's know theirs.")
        network = describe_timm(module, image_size, taps)
        with _Inference(module):
            run_once(module, network.name, network.image_size, network.taps)
    else:
        network = _describe(module, image_size, mean, std, taps, classifier)
    given = {"name": name, "mean": mean, "std": std, "class_names": tuple(class_names) or None}
    network = dataclasses.replace(network, **{field: value for field, value in given.items() if value is not None})
    with _Inference(network.module):
        try:
            return convert(network)
        except NotImplementedError as error:
            raise ValueError(f"{network.name} uses {error}, which torchax has no operation of JAX for.") from error


def convert(network: Network) -> ImportedBackbone:
    """The trunk of a network that is in inference mode. Errors as of `import_torch`."""
    graph = capture(network)
    boundaries, num_classes = find_boundaries(network, graph)
    if network.class_names and len(network.class_names) != num_classes:
        raise ValueError(f"{network.name} has {num_classes} classes, and class_names {len(network.class_names)} names.")
    functions = Functions(network, graph, boundaries, find_attention(network, graph, boundaries[-1]))
    weights = {
        name: np.ascontiguousarray(value.transpose(2, 3, 1, 0)) if name in graph.kernels else value
        for name, value in graph.weights.items()
    }
    checked = check_against_torch(network, functions, weights, num_classes)
    shapes = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in weights.items()}
    programs = export_programs(functions, shapes)
    trunk = Trunk(
        name=network.name,
        num_classes=num_classes,
        image_size=network.image_size,
        mean=tuple(network.mean),
        std=tuple(network.std),
        boundaries=tuple(
            SavedBoundary(network.place(boundary.mark), boundary.height, boundary.width, boundary.dim)
            for boundary in boundaries
        ),
        programs=tuple((name, Program(content)) for name, content in sorted(programs.items())),
        has_vector=functions.has_vector,
        resize=network.resize,
        class_names=network.class_names,
        classifier=functions.classifier_matrices(weights, num_classes),
        checked=tuple(sorted(checked.items())),
        made_with=_versions(),
    )
    return ImportedBackbone(trunk, jax.device_put(weights))


def _describe(
    module: Any,
    image_size: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    taps: Sequence[str] | None,
    classifier: str | None,
) -> Network:
    """A network that does not describe itself."""
    name = type(module).__name__
    if image_size is None or mean is None or std is None:
        fields = (("image_size", image_size), ("mean", mean), ("std", std))
        missing = [field for field, value in fields if value is None]
        raise ValueError(f"{name} does not describe itself: give {', '.join(missing)}.")
    with _Inference(module):
        run_once(module, name, image_size, taps or ())
        taps = tuple(taps or found_taps(module, image_size))
        small = "" if taps else one_pixel_hint(module, image_size)
    if not taps:
        raise ValueError(f"{name} has no sub-module that gives a map [B, d, h, w]: name its taps.{small}")
    return Network(name, module, image_size, mean, std, taps, taps[-1], classifier=classifier)


class _Inference:
    """The network in inference mode, whatever it was before."""

    def __init__(self, module: Any):
        self.modes = {part: part.training for part in module.modules()}

    def __enter__(self) -> None:
        for part in self.modes:
            part.training = False

    def __exit__(self, *_: object) -> None:
        for part, training in self.modes.items():
            part.training = training


def _versions() -> tuple[tuple[str, str], ...]:
    """Of the packages that took part."""
    found = [(package, installed_version(package)) for package in _PACKAGES]
    return tuple((package, version) for package, version in found if version)
