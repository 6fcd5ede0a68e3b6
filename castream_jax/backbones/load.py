"""Weights in and out of a backbone, and its fingerprint."""

from collections.abc import Mapping
import hashlib
import importlib.resources
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from castream_jax.backbones.backbone import Backbone, Taps
from castream_jax.backbones.imported import ImportedBackbone
from castream_jax.backbones.imported_folder import is_imported, read_imported
from castream_jax.backbones.registry import abstract_backbone, create_backbone
from castream_jax.backbones.saved import read_saved
from castream_jax.kernels.precision import Dtype
from castream_jax.layers import BatchNorm
from castream_jax.runtime.traced_rngs import traced_rngs
from castream_jax.weights.download import fetch_weights
from castream_jax.weights.entries import BUNDLED_WEIGHTS, imagenet_entries
from castream_jax.weights.files import TRUNK_FILE, read_weights, write_safetensors
from castream_jax.weights.names import (
    check_names,
    check_values,
    from_torch_layout,
    shared_prefix,
    to_torch_layout,
    torch_shape,
    torch_variables,
    without_wrappers,
)

StateDict = Mapping[str, np.ndarray]


class OtherClassesError(ValueError):
    """Weights that fit a backbone but for the number of its classes.

    Attributes:
        problem: the message without what to do, which depends on how the weights were asked for.
        num_classes: how many classes the weights have.
    """

    def __init__(self, problem: str, num_classes: int):
        super().__init__(
            f"{problem} Give num_classes={num_classes}, or new_classifier=True for a classifier that is drawn anew."
        )
        self.problem, self.num_classes = problem, num_classes


def load_torch_state_dict(backbone: Backbone, state_dict: StateDict) -> None:
    """Copies a torchvision `state_dict` (`{name: array}`, torch layouts) into `backbone`, in place.

    What training wraps a network in is taken off the names, see `castream_jax.weights.names.without_wrappers`.

    Raises:
        ValueError: if any name is missing, extra or of another shape, or any value is not finite; the first names are
            listed and nothing is changed.
    """
    if not isinstance(state_dict, Mapping):
        raise ValueError(f"A state_dict is {{name: array}}, got {type(state_dict).__name__}.")
    _check_own(backbone)
    variables = dict(torch_variables(backbone))
    given = _own_names(backbone, state_dict)
    arrays = {name: np.asarray(given[name]) for name in variables if name in given}
    check_names(f"a {backbone.num_classes}-class {backbone.name}", **_shapes(backbone, given))
    check_values(f"a {backbone.num_classes}-class {backbone.name}", arrays)
    for name, variable in variables.items():
        variable.set_value(jnp.asarray(from_torch_layout(arrays[name]), jnp.float32))


def torch_state_dict(backbone: Backbone) -> dict[str, np.ndarray]:
    """The inverse of `load_torch_state_dict`: `{torchvision name: array}` in torch layouts.

    Raises:
        ValueError: for an imported trunk, whose arrays are laid out as its programs take them.
    """
    _check_own(backbone)
    return {name: to_torch_layout(np.asarray(variable[...])) for name, variable in torch_variables(backbone)}


def _check_own(backbone: Backbone) -> None:
    if isinstance(backbone, ImportedBackbone):
        raise ValueError(
            f"{backbone.name} is an imported trunk, whose weights have no names of torchvision's: use save_backbone."
        )


def load_backbone(
    name: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    *,
    num_classes: int | None = None,
    taps: Taps | None = None,
    new_classifier: bool = False,
    seed: int = 0,
    fold_batch_norm: bool | None = None,
    dtype: Dtype = "float32",
) -> Backbone:
    """A backbone with weights, its parameters allocated once.

    Args:
        name: see `create_backbone`; or a folder that `save_backbone` wrote, which needs no weights.
        weights: a folder that `save_backbone` wrote, whose trunk must be the one that is named; a file (see
            `read_weights`), a directory that `save_pretrained` wrote, the name of weights that ship with the package
            (`"digits"`), or of published ones (`"imagenet1k_v1"`, see `fetch_weights`).
        num_classes: outputs of the classifier, where they differ from the published weights'.
        taps: see `create_backbone`.
        new_classifier: keep the trunk's weights alone, and draw the classifier's final layer anew.
        seed: of the new classifier's parameters.
        fold_batch_norm: in inference, multiply kernels by BatchNorm's factors instead of what the convolutions give;
            the parameters stay as they are. None: on accelerators, where it is faster.
        dtype: type that the trunk computes in, see `Backbone`.

    Raises:
        FileNotFoundError: if `weights` is the path of nothing.
        OtherClassesError: if the weights have another number of classes.
        ValueError: if the weights are unreadable, belong to another architecture, or are not published; or for
            another dtype.
        ConnectionError: if published weights cannot be downloaded.
    """
    folder = name if weights is None else weights
    if isinstance(folder, str | os.PathLike) and is_imported(folder):
        given = None if weights is None else os.fspath(name)
        return _imported(folder, given, num_classes, taps, new_classifier, dtype)
    if weights is None:
        name, num_classes, taps, weights = read_saved(name, num_classes, taps)
    name = os.fspath(name)
    if not isinstance(weights, str | os.PathLike):
        raise ValueError(
            f"weights must be a path or a name, got {type(weights).__name__}: load_torch_state_dict takes tensors."
        )
    backbone = abstract_backbone(name, num_classes, taps=taps)
    backbone.dtype = dtype
    state_dict = _own_names(backbone, _read(name, os.fspath(weights)))
    if new_classifier:
        state_dict |= fresh_classifier(backbone, seed)
    try:
        load_torch_state_dict(backbone, state_dict)
    except ValueError as error:
        if classes := _other_classes(backbone, state_dict):
            raise OtherClassesError(f"{weights}: {error}", classes) from error
        raise ValueError(f"{weights}: {error}") from error
    backbone.set_attributes(BatchNorm, folded=fold_batch_norm, raise_if_not_found=False)
    return backbone


def _imported(
    folder: str | os.PathLike[str],
    name: str | None,
    num_classes: int | None,
    taps: Taps | None,
    new_classifier: bool,
    dtype: Dtype,
) -> ImportedBackbone:
    backbone = read_imported(folder, taps=taps)
    if name not in (None, "imported", backbone.name):
        raise ValueError(
            f"{folder} holds the imported {backbone.name}, which is not {name}: name it, or give load_backbone the "
            "folder alone."
        )
    if new_classifier:
        raise ValueError(
            f"{folder} holds an imported trunk, which is not trained here: fine-tune the network in PyTorch and import "
            "it again, without new_classifier."
        )
    if num_classes not in (None, backbone.num_classes):
        problem = f"{folder} holds {backbone.name} with {backbone.num_classes} classes, not {num_classes}."
        raise OtherClassesError(problem, backbone.num_classes)
    backbone.dtype = dtype
    return backbone


def _read(name: str, weights: str) -> StateDict:
    """The tensors of bundled or published weights, of a file, or of an exported folder."""
    owners = [architecture for architecture, entries in BUNDLED_WEIGHTS.items() if weights in entries]
    if owners:
        if name not in owners:
            raise ValueError(f"The bundled weights {weights!r} are those of {' and '.join(owners)}, not of {name}.")
        file_name = BUNDLED_WEIGHTS[name][weights]
        with importlib.resources.as_file(importlib.resources.files("castream_jax") / "weights" / file_name) as path:
            return read_weights(path)
    if _is_entry(name, weights):
        return read_weights(fetch_weights(name, weights))
    folder = Path(weights).expanduser()
    return read_weights(folder / TRUNK_FILE if folder.is_dir() else weights)


def save_torch_weights(backbone: Backbone, path: str | os.PathLike[str]) -> None:
    """Writes `torch_state_dict(backbone)` as a safetensors file, which PyTorch reads as well."""
    write_safetensors(torch_state_dict(backbone), path)


def fingerprint(backbone: Backbone) -> str:
    """SHA-256 over the names and bytes of all parameters and statistics: equal for equal trunks.

    Of an imported trunk, its programs and normalisation count as well.
    """
    digest = hashlib.sha256()
    if isinstance(backbone, ImportedBackbone):
        arrays = {name: np.asarray(value) for name, value in backbone.arrays().items()}
        digest.update(backbone.trunk.digest().encode())
    else:
        arrays = torch_state_dict(backbone)
    for name, value in sorted(arrays.items()):
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _is_entry(name: str, weights: str) -> bool:
    """Whether `weights` names published weights, rightly or not: a bare word that is no file."""
    bare = not Path(weights).suffix and Path(weights).name == weights
    return weights.lower() in imagenet_entries(name) or (bare and not Path(weights).exists())


def _classifier_names(backbone: Backbone) -> set[str]:
    """The parameters that a different number of classes changes."""
    other = abstract_backbone(backbone.name, backbone.num_classes + 1)
    shapes = {name: variable.shape for name, variable in torch_variables(other)}
    return {name for name, variable in torch_variables(backbone) if variable.shape != shapes[name]}


def fresh_classifier(backbone: Backbone, seed: int) -> dict[str, np.ndarray]:
    """The classifier's parameters as `create_backbone` draws them; the rest of the backbone is never computed."""
    names = _classifier_names(backbone)

    @jax.jit
    def draw() -> dict[str, jax.Array]:
        fresh = create_backbone(backbone.name, backbone.num_classes, rngs=traced_rngs(seed))
        return {name: variable[...] for name, variable in torch_variables(fresh) if name in names}

    return {name: to_torch_layout(np.asarray(value)) for name, value in draw().items()}


def _own_names(backbone: Backbone, state_dict: StateDict) -> dict[str, np.ndarray]:
    """Tensors under the backbone's names, were they wrapped or not, without what PyTorch counts.

    A backbone of another distribution may have such a wrapper's name itself, as where all of it is `self.model`.
    """
    own = shared_prefix(name for name, _ in torch_variables(backbone))
    given = without_wrappers(state_dict).items()
    return {own + name: value for name, value in given if not name.endswith("num_batches_tracked")}


def _shapes(backbone: Backbone, state_dict: StateDict) -> dict[str, dict[str, tuple[int, ...]]]:
    """The shapes that are expected, and those that are given."""
    return {
        "expected": {name: torch_shape(variable.shape) for name, variable in torch_variables(backbone)},
        "given": {name: np.shape(value) for name, value in state_dict.items()},
    }


def _other_classes(backbone: Backbone, state_dict: StateDict) -> int:
    """The number of classes of weights in which nothing else differs; 0 if it is another difference."""
    expected, given = _shapes(backbone, state_dict).values()
    if expected.keys() != given.keys():
        return 0
    different = [name for name in expected if given[name] != expected[name]]
    fits = different and _classifier_names(backbone).issuperset(different) and all(given[name] for name in different)
    return given[different[0]][0] if fits else 0
