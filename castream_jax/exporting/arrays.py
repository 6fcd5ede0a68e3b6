"""All arrays of a model by name, and `model.safetensors`, which holds them.

A name is the path of attributes that leads to the array, `heads.ca.projections.0.kernel`; layouts are JAX's.
"""

import functools
from pathlib import Path
from typing import Any

from flax import nnx
import jax
import safetensors
import safetensors.numpy

from castream_jax.backbones import create_backbone
from castream_jax.backbones.imported_folder import abstract_imported, is_imported
from castream_jax.exporting.description import STREAM_FIELDS, TRUNK_FOLDER, Description
from castream_jax.model import Head, Model
from castream_jax.runtime.traced_rngs import traced_rngs
from castream_jax.stream import CrossAttentionStream, GlobalAveragePooling, NativePooling
from castream_jax.weights.files import write_safetensors
from castream_jax.weights.names import check_names

ARRAYS_FILE = "model.safetensors"


def named_arrays(module: nnx.Module) -> dict[str, Any]:
    """Name -> array, or shape of an abstract module."""
    tree = nnx.to_pure_dict(nnx.state(module))
    return {".".join(str(key.key) for key in path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def with_arrays(model: Model, arrays: dict[str, Any]) -> Model:
    """The model with other arrays, by name; the one given stays as it is."""
    graphdef, state = nnx.split(model)
    tree = nnx.to_pure_dict(state)
    leaves = [arrays[name] for name in named_arrays(model)]
    nnx.replace_by_pure_dict(state, jax.tree.unflatten(jax.tree.structure(tree), leaves))
    return nnx.merge(graphdef, state)


def build_heads(description: Description, stage_dims: tuple[int, ...]) -> dict[str, Head]:
    """Heads that have shapes in their arrays' place: drawing parameters that are then replaced takes a second."""
    return {
        name: nnx.eval_shape(functools.partial(_build_head, dict(fields), stage_dims))
        for name, fields in description.heads.items()
    }


def write_arrays(model: Model, folder: Path) -> None:
    """Writes `model.safetensors`."""
    write_safetensors(jax.device_get(named_arrays(model)), folder / ARRAYS_FILE)


def read_model(description: Description, folder: Path) -> Model:
    """The model of a folder with `model.safetensors`.

    Raises:
        ValueError: if the file is damaged, or holds other arrays than described.
    """

    def build() -> Model:
        if is_imported(folder / TRUNK_FOLDER):
            backbone = abstract_imported(folder / TRUNK_FOLDER, taps=description.taps)
        else:
            backbone = create_backbone(
                description.backbone, description.num_classes, rngs=traced_rngs(0), taps=description.taps
            )
        return Model(backbone, build_heads(description, backbone.stage_dims))

    abstract = nnx.eval_shape(build)
    try:
        arrays = safetensors.numpy.load_file(folder / ARRAYS_FILE)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{folder / ARRAYS_FILE} is truncated or corrupted: {error}.") from error
    check_names(
        f"the model described in {folder}",
        expected={name: leaf.shape for name, leaf in named_arrays(abstract).items()},
        given={name: array.shape for name, array in arrays.items()},
    )
    model = with_arrays(abstract, jax.device_put(arrays))
    model.backbone.dtype = description.dtype  # pyright: ignore[reportAttributeAccessIssue]
    return model


def _build_head(fields: dict[str, Any], stage_dims: tuple[int, ...]) -> Head:
    if fields["type"] == "gap":
        return GlobalAveragePooling()
    if fields["type"] == "native":
        return NativePooling()
    return CrossAttentionStream(stage_dims, **{name: fields[name] for name in STREAM_FIELDS}, rngs=nnx.Rngs(0))
