"""A whole model in one directory: trunk, streams, and what they are.

`model.json` names the backbone and describes every head and, where that is known, the images and the classes,
`trunk.safetensors` holds the trunk under torchvision's names, `streams/` the streams as an Orbax checkpoint.
"""

import dataclasses
import json
import os
from pathlib import Path
import shutil
import tempfile
from typing import Any

from flax import nnx
import orbax.checkpoint as ocp

from castream_jax.backbones import fingerprint, load_backbone, save_torch_weights
from castream_jax.backbones.weights import TRUNK_FILE
from castream_jax.model import Head, ImageSpec, Model
from castream_jax.stream import CrossAttentionStream, GlobalAveragePooling
from castream_jax.version import __version__

_STREAM_FIELDS = ("start_stage", "block", "num_queries", "num_heads", "use_bias")


def save_pretrained(model: Model, directory: str | os.PathLike[str]) -> None:
    """Writes `model` to `directory`, whole or not at all.

    Raises:
        FileExistsError: if `directory` exists and is not an earlier export, which would be replaced.
    """
    directory = Path(directory).resolve()
    if directory.exists() and any(directory.iterdir()) and not (directory / "model.json").is_file():
        raise FileExistsError(f"{directory} exists and holds something else than a model: choose another directory.")
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        description = {
            "castream_jax": __version__,
            "backbone": model.backbone.name,
            "num_classes": model.backbone.num_classes,
            "taps": model.backbone.taps,
            "trunk_fingerprint": fingerprint(model.backbone),
            "heads": {name: _describe(head) for name, head in model.heads.items()},
        }
        if model.images is not None:
            description["images"] = dataclasses.asdict(model.images)
        (temporary / "model.json").write_text(json.dumps(description, indent=2) + "\n")
        save_torch_weights(model.backbone, temporary / TRUNK_FILE)
        if streams := _streams(model):
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(temporary / "streams", streams)
        temporary.chmod(0o755)
        if directory.exists():
            shutil.rmtree(directory)
        temporary.rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_pretrained(directory: str | os.PathLike[str]) -> Model:
    """The model that `save_pretrained` wrote.

    Raises:
        FileNotFoundError: if `directory` holds no model.
        ValueError: if its trunk is not the one its streams were exported with.
    """
    directory = Path(directory).resolve()
    if not (directory / "model.json").is_file():
        raise FileNotFoundError(f"{directory} holds no model: there is no model.json.")
    description = json.loads((directory / "model.json").read_text())
    backbone = load_backbone(
        description["backbone"], directory, num_classes=description["num_classes"], taps=description["taps"]
    )
    if fingerprint(backbone) != description["trunk_fingerprint"]:
        raise ValueError(f"The trunk in {directory} is not the one its streams were trained beside: export it again.")
    images = description.get("images")
    model = Model(
        backbone,
        {name: _build(head, backbone.stage_dims) for name, head in description["heads"].items()},
        None if images is None else ImageSpec(**images | {"class_names": tuple(images["class_names"])}),
    )
    if streams := _streams(model):
        with ocp.StandardCheckpointer() as checkpointer:
            nnx.update(model.heads, checkpointer.restore(directory / "streams", streams))
    return model


def _streams(model: Model) -> dict[str, Any]:
    """Arrays (or, of an abstract model, their shapes) of every head that has any."""
    return nnx.to_pure_dict(nnx.state(model.heads, nnx.Param))


def _describe(head: Head) -> dict[str, Any]:
    if isinstance(head, GlobalAveragePooling):
        return {"type": "gap"}
    return {"type": "stream", **{field: getattr(head, field) for field in _STREAM_FIELDS}}


def _build(description: dict[str, Any], stage_dims: tuple[int, ...]) -> Head:
    if description["type"] == "gap":
        return GlobalAveragePooling()
    fields = {field: description[field] for field in _STREAM_FIELDS}
    # Its shapes alone: what it would be initialised with is replaced at once.
    return nnx.eval_shape(lambda: CrossAttentionStream(stage_dims, **fields, rngs=nnx.Rngs(0)))
