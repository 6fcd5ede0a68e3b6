"""A backbone as a folder of its own: of an imported trunk see `imported_folder`, of any other it is described here.

`backbone.json` says what the backbone is, `trunk.safetensors` holds its weights under torchvision's names.
"""

import json
import os
from pathlib import Path

import numpy as np

from castream_jax.backbones.backbone import Backbone, Taps
from castream_jax.backbones.imported import ImportedBackbone
from castream_jax.backbones.imported_folder import write_imported
from castream_jax.backbones.registry import check_registered
from castream_jax.runtime.atomic_files import json_text
from castream_jax.runtime.atomic_folder import writing_folder
from castream_jax.runtime.local_path import local_path
from castream_jax.version import __version__
from castream_jax.weights.files import TRUNK_FILE, write_safetensors
from castream_jax.weights.names import to_torch_layout, torch_variables

SAVED_FILE = "backbone.json"


def save_backbone(backbone: Backbone, directory: str | os.PathLike[str]) -> None:
    """Writes a backbone to a folder, whole or not at all: `load_backbone(directory)` gives it back, without PyTorch.

    Raises:
        FileExistsError: if `directory` exists and holds anything but an earlier backbone.
        ValueError: if nothing could load it, its name not being registered; or `directory` is an address.
    """
    if isinstance(backbone, ImportedBackbone):
        write_imported(backbone, directory)
        return
    check_registered(backbone)
    values = {
        "castream_jax": __version__,
        "backbone": backbone.name,
        "num_classes": backbone.num_classes,
        "taps": list(backbone.taps),
    }
    directory = local_path(directory)
    with writing_folder(directory, may_replace={SAVED_FILE, TRUNK_FILE}, marker=SAVED_FILE) as folder:
        (folder / SAVED_FILE).write_text(json_text(values, SAVED_FILE, indent=2) + "\n", encoding="utf-8")
        tensors = {name: to_torch_layout(np.asarray(value[...])) for name, value in torch_variables(backbone)}
        write_safetensors(tensors, folder / TRUNK_FILE)


def read_saved(
    folder: str | os.PathLike[str], num_classes: int | None, taps: Taps | None
) -> tuple[str, int, Taps, Path]:
    """Name, number of classes, taps and weights of the backbone in a folder; what is not None is left as it is.

    Raises:
        ValueError: if the folder holds no backbone.
    """
    path = local_path(folder) / SAVED_FILE
    if not path.is_file():
        raise ValueError(
            f"{os.fspath(folder)} is no folder that save_backbone or castream import wrote: a backbone that is "
            "given by its name needs weights, load_backbone(name, weights)."
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        own = str(values["backbone"]), int(values["num_classes"]), tuple(values["taps"])
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): save the backbone again.") from error
    name, classes, boundaries = own
    return name, num_classes or classes, boundaries if taps is None else taps, path.parent / TRUNK_FILE
