"""The formats of an export; each fills a folder."""

from collections.abc import Callable
import os
from pathlib import Path

from flax import nnx
import orbax.checkpoint as ocp

from castream_jax.backbones import ImportedBackbone, get_architecture, save_torch_weights
from castream_jax.backbones.imported_folder import fill_folder
from castream_jax.exporting.arrays import ARRAYS_FILE, write_arrays
from castream_jax.exporting.description import DESCRIPTION_FILE, INCLUDED, TRUNK_FOLDER, Description
from castream_jax.exporting.model_card import CARD_FILE, render_card
from castream_jax.exporting.stablehlo import PROGRAM_FILE, export_program
from castream_jax.model import Model
from castream_jax.runtime.atomic_folder import writing_folder
from castream_jax.runtime.bucket_folder import Place, as_given, open_folder
from castream_jax.stream import CrossAttentionStream
from castream_jax.stream_weights import torch_stream_state_dict
from castream_jax.weights.files import TRUNK_FILE, write_safetensors

STREAMS_FOLDER = "streams"

# What any export of a whole model may hold, and therefore what a new one may take the place of.
_FILES = {DESCRIPTION_FILE, CARD_FILE, TRUNK_FILE, TRUNK_FOLDER, STREAMS_FOLDER, ARRAYS_FILE, PROGRAM_FILE}


def write_pretrained(model: Model, description: Description, directory: str | os.PathLike[str]) -> Place:
    """Description, card, the streams as an Orbax checkpoint and, unless it is referred to, the trunk as safetensors."""
    directory = open_folder(directory)
    with writing_folder(directory, may_replace=_FILES, marker=DESCRIPTION_FILE) as folder:
        _write_texts(description, "pretrained", folder)
        if description.trunk == INCLUDED:
            if isinstance(model.backbone, ImportedBackbone):
                _write_imported(model.backbone, folder)
            else:
                save_torch_weights(model.backbone, folder / TRUNK_FILE)
        if streams := nnx.to_pure_dict(nnx.state(model.heads, nnx.Param)):
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(folder / STREAMS_FOLDER, streams)
    return as_given(directory)


def write_one_file(model: Model, description: Description, directory: str | os.PathLike[str]) -> Place:
    """Description, card, and all arrays in one safetensors file."""
    directory = open_folder(directory)
    with writing_folder(directory, may_replace=_FILES, marker=DESCRIPTION_FILE) as folder:
        _write_texts(description, "safetensors", folder)
        _write_model(model, folder)
    return as_given(directory)


def write_stablehlo(model: Model, description: Description, directory: str | os.PathLike[str]) -> Place:
    """As `write_one_file`, and the program that takes those arrays: see `export_program`.

    Its images have the size that the description gives, or of the backbone's published weights.
    """
    directory = open_folder(directory)
    images = description.images
    if isinstance(model.backbone, ImportedBackbone):
        size = model.backbone.trunk.image_size
    else:
        size = images.size if images else get_architecture(description.backbone).input_size
    with writing_folder(directory, may_replace=_FILES, marker=DESCRIPTION_FILE) as folder:
        _write_texts(description, "stablehlo", folder, size)
        _write_model(model, folder)
        (folder / PROGRAM_FILE).write_bytes(export_program(model, size).serialize())
    return as_given(directory)


def write_official(model: Model, description: Description, directory: str | os.PathLike[str]) -> Place:
    """`<stream>.safetensors` of each stream under the official implementation's names and layouts, and nothing else.

    Raises:
        ValueError: if the model has no stream.
    """
    directory = open_folder(directory)
    style = "convnext" if description.backbone.startswith("convnext") else "resnet"
    streams = {name: head for name, head in model.heads.items() if isinstance(head, CrossAttentionStream)}
    if not streams:
        raise ValueError("This model has no stream, and official files hold nothing else.")
    with writing_folder(directory, may_replace={f"{name}.safetensors" for name in streams}) as folder:
        for name, stream in streams.items():
            write_safetensors(torch_stream_state_dict(stream, style), folder / f"{name}.safetensors")
    return as_given(directory)


FORMATS: dict[str, Callable[[Model, Description, str | os.PathLike[str]], Place]] = {
    "pretrained": write_pretrained,
    "safetensors": write_one_file,
    "stablehlo": write_stablehlo,
    "official": write_official,
}


def _write_model(model: Model, folder: Path) -> None:
    """All arrays in one file; of an imported trunk, the programs that take them as well."""
    write_arrays(model, folder)
    if isinstance(model.backbone, ImportedBackbone):
        _write_imported(model.backbone, folder, arrays=False)


def _write_imported(backbone: ImportedBackbone, folder: Path, *, arrays: bool = True) -> None:
    (folder / TRUNK_FOLDER).mkdir()
    fill_folder(backbone, folder / TRUNK_FOLDER, arrays=arrays)


def _write_texts(description: Description, format_: str, folder: Path, program_size: int | None = None) -> None:
    (folder / DESCRIPTION_FILE).write_text(description.to_json(), encoding="utf-8")
    (folder / CARD_FILE).write_text(render_card(description, format_, program_size), encoding="utf-8")
