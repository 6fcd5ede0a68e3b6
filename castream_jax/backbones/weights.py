"""Weights in and out of a backbone: files of torchvision's names and layouts, and the trunk's fingerprint."""

from collections.abc import Iterator, Mapping
import hashlib
import importlib.resources
import os
from pathlib import Path
from typing import get_args
import zipfile

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from castream_jax.backbones.backbone import Backbone, Dtype, Taps
from castream_jax.backbones.download import fetch_weights
from castream_jax.backbones.entries import PUBLISHED_WEIGHTS
from castream_jax.backbones.layers import BatchNorm
from castream_jax.backbones.registry import create_backbone
from castream_jax.backbones.safetensors_file import write_safetensors
from castream_jax.backbones.torch_file import read_torch_file

StateDict = Mapping[str, np.ndarray]

# Weights that ship with the package: name -> (backbone, file). See configs/digits/pretrain.py for how they came about.
BUNDLED_WEIGHTS = {"digits": ("cifar_resnet8", "digits_cifar_resnet8.safetensors")}

# The trunk within a directory that `save_pretrained` wrote.
TRUNK_FILE = "trunk.safetensors"

_TORCH_LEAF = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "layer_scale": "layer_scale",
}

# number of axes -> PyTorch's axes in our order: convolutions OIHW -> HWIO, layer_scale CHW -> HWC, matrices OI -> IO
_TORCH_AXES = {4: (2, 3, 1, 0), 3: (1, 2, 0), 2: (1, 0), 1: (0,)}


def load_torch_state_dict(backbone: Backbone, state_dict: StateDict) -> None:
    """Copies a torchvision `state_dict` (`{name: array}`, torch layouts) into `backbone`, in place.

    Raises:
        ValueError: if any name is missing, extra or of another shape; all of them are listed and nothing is changed.
    """
    variables = dict(_torch_variables(backbone))
    given = {name: value for name, value in state_dict.items() if not name.endswith("num_batches_tracked")}
    arrays = {name: np.asarray(given[name]) for name in variables if name in given}
    check_names(
        f"a {backbone.num_classes}-class {backbone.name}",
        expected={name: _torch_shape(variable.shape) for name, variable in variables.items()},
        given={name: np.shape(value) for name, value in given.items()},
    )
    for name, variable in variables.items():
        variable.set_value(jnp.asarray(_from_torch_layout(arrays[name]), jnp.float32))


def torch_state_dict(backbone: Backbone) -> dict[str, np.ndarray]:
    """The inverse of `load_torch_state_dict`: `{torchvision name: array}` in torch layouts."""
    return {name: _to_torch_layout(np.asarray(variable[...])) for name, variable in _torch_variables(backbone)}


def check_names(what: str, *, expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> None:
    """Raises a ValueError listing every missing, extra and misshaped name, if there is one."""
    misshaped = [
        f"{name} is {list(given[name])}, should be {list(expected[name])}"
        for name in expected
        if name in given and tuple(given[name]) != tuple(expected[name])
    ]
    problems = {
        "missing": [name for name in expected if name not in given],
        "extra": [name for name in given if name not in expected],
        "misshaped": misshaped,
    }
    listing = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in problems.items() if names)
    if listing:
        raise ValueError(f"These weights are not those of {what}. {listing}.")


def read_weights(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Tensors of a `.safetensors`, `.npz`, `.pth`, `.pt` or `.th` file, by name. No code in the file is run.

    A checkpoint's `state_dict` entry is unwrapped, and DataParallel's `module.` prefix taken off.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is of another kind, truncated or corrupted.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no weight file {path}: check the path.")
    if path.suffix == ".safetensors":
        try:
            return safetensors.numpy.load_file(path)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is truncated, corrupted or no safetensors file: {error}.") from error
    if path.suffix == ".npz":
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is truncated, corrupted or no npz file: {error}.") from error
    if path.suffix not in (".pth", ".pt", ".th"):
        raise ValueError(f"{path}: weights are read from .safetensors, .npz, .pth, .pt and .th files.")
    saved = read_torch_file(path)
    state_dict = saved.get("state_dict", saved) if isinstance(saved, dict) else saved
    if not isinstance(state_dict, dict) or not all(isinstance(value, np.ndarray) for value in state_dict.values()):
        raise ValueError(f"{path} holds no state_dict of tensors.")
    if all(name.startswith("module.") for name in state_dict):
        state_dict = {name.removeprefix("module."): value for name, value in state_dict.items()}
    return state_dict


def load_backbone(
    name: str,
    weights: str | os.PathLike[str],
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
        name: see `create_backbone`.
        weights: a file (see `read_weights`), a directory that `save_pretrained` wrote, the name of weights that
            ship with the package (`"digits"`), or of published ones (`"imagenet1k_v1"`, see `fetch_weights`).
        num_classes: outputs of the classifier, where they differ from the published weights'.
        taps: see `create_backbone`.
        new_classifier: keep the trunk's weights alone, and draw the classifier's final layer anew.
        seed: of the new classifier's parameters.
        fold_batch_norm: in inference, multiply kernels by BatchNorm's factors instead of what the convolutions give;
            the parameters stay as they are. None: on accelerators, where it is faster.
        dtype: type that the trunk computes in, see `Backbone`.

    Raises:
        FileNotFoundError: if `weights` is the path of nothing.
        ValueError: if the weights are unreadable, belong to another architecture, or are not published.
        ConnectionError: if published weights cannot be downloaded.
    """
    if dtype not in get_args(Dtype):
        raise ValueError(f"dtype must be one of {', '.join(get_args(Dtype))}, got {dtype!r}.")
    backbone = nnx.eval_shape(lambda: create_backbone(name, num_classes, rngs=nnx.Rngs(0), taps=taps))
    if os.fspath(weights) in BUNDLED_WEIGHTS:
        architecture, file_name = BUNDLED_WEIGHTS[os.fspath(weights)]
        if name != architecture:
            raise ValueError(f"The bundled weights {weights!r} are those of {architecture}, not of {name}.")
        with importlib.resources.as_file(importlib.resources.files("castream_jax") / "weights" / file_name) as path:
            state_dict = read_weights(path)
    elif _is_entry(name, os.fspath(weights)):
        state_dict = read_weights(fetch_weights(name, os.fspath(weights)))
    else:
        state_dict = read_weights(Path(weights) / TRUNK_FILE if Path(weights).is_dir() else weights)
    if new_classifier:
        state_dict = {**state_dict, **fresh_classifier(backbone, seed)}
    try:
        load_torch_state_dict(backbone, state_dict)
    except ValueError as error:
        hint = ""
        if _only_classifier_differs(backbone, state_dict):
            hint = " Give its num_classes, or new_classifier=True to load_backbone for one drawn anew."
        raise ValueError(f"{weights}: {error}{hint}") from error
    backbone.dtype = dtype
    backbone.set_attributes(BatchNorm, folded=fold_batch_norm, raise_if_not_found=False)
    return backbone


def save_torch_weights(backbone: Backbone, path: str | os.PathLike[str]) -> None:
    """Writes `torch_state_dict(backbone)` as a safetensors file, which PyTorch reads as well."""
    write_safetensors(torch_state_dict(backbone), path)


def fingerprint(backbone: Backbone) -> str:
    """SHA-256 over the names and bytes of all parameters and statistics: equal for equal trunks."""
    digest = hashlib.sha256()
    for name, value in sorted(torch_state_dict(backbone).items()):
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _is_entry(name: str, weights: str) -> bool:
    """Whether `weights` names published weights, rightly or not: a bare word that is no file."""
    bare = not Path(weights).suffix and Path(weights).name == weights
    return weights.lower() in PUBLISHED_WEIGHTS.get(name, {}) or (bare and not Path(weights).exists())


def _classifier_names(backbone: Backbone) -> set[str]:
    """The parameters that a different number of classes changes."""
    other = nnx.eval_shape(lambda: create_backbone(backbone.name, backbone.num_classes + 1, rngs=nnx.Rngs(0)))
    shapes = {name: variable.shape for name, variable in _torch_variables(other)}
    return {name for name, variable in _torch_variables(backbone) if variable.shape != shapes[name]}


def fresh_classifier(backbone: Backbone, seed: int) -> dict[str, np.ndarray]:
    """The classifier's parameters as `create_backbone` draws them; the rest of the backbone is never computed."""
    names = _classifier_names(backbone)

    @jax.jit
    def draw() -> dict[str, jax.Array]:
        fresh = create_backbone(backbone.name, backbone.num_classes, rngs=nnx.Rngs(seed))
        return {name: variable[...] for name, variable in _torch_variables(fresh) if name in names}

    return {name: _to_torch_layout(np.asarray(value)) for name, value in draw().items()}


def _only_classifier_differs(backbone: Backbone, state_dict: StateDict) -> bool:
    expected = {name: _torch_shape(variable.shape) for name, variable in _torch_variables(backbone)}
    given = {name: np.shape(value) for name, value in state_dict.items() if not name.endswith("num_batches_tracked")}
    return expected.keys() == given.keys() and _classifier_names(backbone).issuperset(
        name for name in expected if given[name] != expected[name]
    )


def _torch_variables(backbone: Backbone) -> Iterator[tuple[str, nnx.Variable]]:
    """(torchvision name, variable) of every parameter and statistic: attribute paths are torchvision's names."""
    for path, node in nnx.iter_graph(backbone):
        if isinstance(node, nnx.Variable):
            *modules, leaf = path
            yield ".".join(map(str, (*modules, _TORCH_LEAF[str(leaf)]))), node


def _from_torch_layout(value: np.ndarray) -> np.ndarray:
    return value.transpose(_TORCH_AXES[value.ndim])


def _to_torch_layout(value: np.ndarray) -> np.ndarray:
    return value.transpose(np.argsort(_TORCH_AXES[value.ndim]))


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in np.argsort(_TORCH_AXES[len(shape)]))
