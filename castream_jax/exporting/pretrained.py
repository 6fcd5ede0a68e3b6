"""A whole model in one directory: trunk, streams, and what they are.

`model.json` describes the model, `trunk.safetensors` holds the trunk under torchvision's names unless it is referred to
by the name of published weights, `streams/` the streams as an Orbax checkpoint, and `README.md` is the model's card.
"""

from collections.abc import Mapping
import os
from pathlib import Path
from typing import Any

from flax import nnx
import jax
from jax.sharding import SingleDeviceSharding
import orbax.checkpoint as ocp

from castream_jax.backbones import fingerprint, load_backbone
from castream_jax.backbones.imported_folder import is_imported
from castream_jax.exporting.arrays import ARRAYS_FILE, build_heads, read_model
from castream_jax.exporting.description import INCLUDED, TRUNK_FOLDER, Description, describe, read_description
from castream_jax.exporting.formats import STREAMS_FOLDER, write_pretrained
from castream_jax.exporting.hub import local_folder
from castream_jax.model import Model, check_model


def save_pretrained(
    model: Model,
    directory: str | os.PathLike[str],
    *,
    trunk: str = INCLUDED,
    config: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> None:
    """Writes `model` to `directory`, whole or not at all.

    Args:
        model: what to write; `model.images`, how images come to it and what its classes are called, goes along.
        directory: where to, a folder or an address in a bucket; an earlier export is replaced.
        trunk: `"included"`, or the name of published or bundled weights that it is (`"imagenet1k_v1"`): then the export
            refers to them by name and fingerprint, and is small.
        config: of the experiment, as plain values.
        evaluation: summary of an evaluation of these heads, for the card.

    Raises:
        FileExistsError: if `directory` exists and holds anything but an earlier export.
        ValueError: if there are other class names than classes, the trunk is not that of the weights, or parameters
            are not float32.
    """
    check_model(model)
    write_pretrained(model, describe(model, trunk=trunk, config=config, evaluation=evaluation), directory)


def load_pretrained(directory: str | os.PathLike[str]) -> Model:
    """The model that `save_pretrained`, or `castream export --to` pretrained, safetensors or stablehlo, wrote.

    Args:
        directory: path, address in a bucket (`s3://…`, `gs://…`), or `hf://user/repository[@revision]` on Hugging
            Face's hub.

    Raises:
        FileNotFoundError: if `directory` holds no model.
        ValueError: if its trunk is not the one its streams were exported with.
        ConnectionError, ImportError: see `local_folder`.
    """
    folder = local_folder(directory)
    description = read_description(folder)
    if (folder / ARRAYS_FILE).is_file():
        model = read_model(description, folder)
    else:
        included = description.trunk == INCLUDED
        imported = is_imported(folder / TRUNK_FOLDER)
        backbone = load_backbone(
            description.backbone,
            folder / TRUNK_FOLDER if imported else folder if included else description.trunk,
            num_classes=description.num_classes,
            taps=description.taps,
            dtype=description.dtype,  # pyright: ignore[reportArgumentType]
        )
        model = Model(backbone, build_heads(description, backbone.stage_dims))
        if shapes := nnx.to_pure_dict(nnx.state(model.heads, nnx.Param)):
            device = SingleDeviceSharding(jax.local_devices()[0])
            shapes = jax.tree.map(lambda leaf: leaf.update(sharding=device), shapes)
            with ocp.StandardCheckpointer() as checkpointer:
                nnx.update(model.heads, checkpointer.restore(folder / STREAMS_FOLDER, shapes))
    model.images = description.images
    _check_trunk(model, description, folder)
    return model


def describe_pretrained(directory: str | os.PathLike[str]) -> Description:
    """What an export is: images and class names, heads, trunk, evaluation.

    Args:
        directory: see `load_pretrained`.

    Raises:
        FileNotFoundError: if `directory` holds no model.
    """
    return read_description(local_folder(directory))


def _check_trunk(model: Model, description: Description, folder: Path) -> None:
    found = fingerprint(model.backbone)
    if found == description.trunk_fingerprint:
        return
    if description.trunk == INCLUDED:
        raise ValueError(f"The trunk in {folder} is not the one its streams were trained beside: export it again.")
    raise ValueError(
        f"The weights {description.trunk} of {description.backbone} on this machine are not the trunk that the streams "
        f"in {folder} were trained beside (fingerprint {found[:12]}, not {description.trunk_fingerprint[:12]}): "
        "fetch them again, or ask for an export that includes its trunk."
    )
