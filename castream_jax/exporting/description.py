"""`model.json`: describes an export; loading it needs no other information."""

from collections.abc import Mapping
import dataclasses
import json
from pathlib import Path
import shlex
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from castream_jax.backbones import fingerprint, load_backbone
from castream_jax.backbones.imported import ImportedBackbone
from castream_jax.backbones.registry import check_registered
from castream_jax.experiment.workdir import Workdir
from castream_jax.model import Head, ImageSpec, Model
from castream_jax.runtime.atomic_files import json_text
from castream_jax.stream import GlobalAveragePooling, NativePooling
from castream_jax.version import __version__
from castream_jax.weights.entries import known_entries

DESCRIPTION_FILE = "model.json"
TRUNK_FOLDER = "trunk"  # of an imported trunk
INCLUDED = "included"  # the trunk's arrays lie in the export

STREAM_FIELDS = ("start_stage", "block", "num_queries", "num_heads", "use_bias")

# Raised when an older release would misread what a newer one writes. Exports without the field are of format 1; they
# may say nothing of images and classes, and include their float32 trunk.
_FORMAT = 2


@dataclasses.dataclass(frozen=True)
class Description:
    """What `model.json` says.

    Attributes:
        backbone, num_classes, taps, dtype: see `load_backbone`.
        trunk: `"included"`, or the name of the weights that it is (`"imagenet1k_v1"`).
        trunk_fingerprint: see `fingerprint`; checked at loading.
        heads: name -> `{"type": "gap"}`, `"native"`, or `"stream"` and the arguments of `CrossAttentionStream`.
        images: size, way of resizing and class names; None where unknown.
        config: the experiment's, as plain values; None where there was none.
        evaluation: the summary of an evaluation of these very heads; None where there was none.
        version: of castream_jax that wrote it.
    """

    backbone: str
    num_classes: int
    taps: tuple[int, ...]
    trunk_fingerprint: str
    heads: Mapping[str, Mapping[str, Any]]
    trunk: str = INCLUDED
    dtype: str = "float32"
    images: ImageSpec | None = None
    config: Mapping[str, Any] | None = None
    evaluation: Mapping[str, Any] | None = None
    version: str = __version__

    def to_json(self) -> str:
        """The content of `model.json`."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        version = fields.pop("version")
        if self.images is not None:
            fields["images"] = dataclasses.asdict(self.images)
        values = {"castream_jax": version, "format": _FORMAT, **fields}
        return json_text(values, DESCRIPTION_FILE, indent=2, ensure_ascii=False) + "\n"


def describe(
    model: Model,
    *,
    trunk: str = INCLUDED,
    config: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> Description:
    """A description of `model`; see `Description` for the arguments.

    Raises:
        ValueError: if there are other class names than classes, the trunk is not that of the weights it refers to, or
            parameters are not float32.
    """
    backbone, images = model.backbone, model.images
    _check_parameters(model)
    if not isinstance(backbone, ImportedBackbone):
        check_registered(backbone)
    if images is not None and len(images.class_names) not in (0, backbone.num_classes):
        raise ValueError(f"{len(images.class_names)} class names were given for {backbone.num_classes} classes.")
    description = Description(
        backbone=backbone.name,
        num_classes=backbone.num_classes,
        taps=backbone.taps,
        dtype=backbone.dtype,
        trunk_fingerprint=fingerprint(backbone),
        heads={name: _describe_head(head) for name, head in model.heads.items()},
        images=images,
        config=config,
        evaluation=evaluation,
    )
    return refer_to_trunk(description, trunk)


def refer_to_trunk(description: Description, trunk: str) -> Description:
    """The description with its trunk `"included"`, or referred to by the name of weights that everyone can get.

    Raises:
        ValueError: if `trunk` names no such weights, or they are not this trunk.
    """
    name = description.backbone
    if trunk != INCLUDED:
        known = known_entries(name)
        if trunk not in known:
            raise ValueError(
                f"A trunk can be referred to by published weights of {name} only, of which there are "
                f"{', '.join(known) or 'none'}; not by {trunk!r}: include it."
            )
        there = load_backbone(name, trunk, num_classes=description.num_classes)
        if fingerprint(there) != description.trunk_fingerprint:
            raise ValueError(f"The trunk of this model is not {trunk} of {name}: include it in the export.")
    return dataclasses.replace(description, trunk=trunk)


def read_description(folder: Path) -> Description:
    """The description of an export.

    Raises:
        FileNotFoundError: if `folder` holds no model.
        ValueError: if `model.json` is damaged, or a newer release wrote it.
    """
    path = folder / DESCRIPTION_FILE
    if not path.is_file():
        if Workdir.at(folder).config.is_file():
            raise FileNotFoundError(
                f"{folder} is a workdir, and no export: write one with `castream export --workdir "
                f"{shlex.quote(format(folder))} --to pretrained --out DIR`, or open it by "
                "castream_jax.exporting.from_workdir.open_workdir."
            )
        raise FileNotFoundError(f"{folder} holds no model: there is no {DESCRIPTION_FILE}.")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        version, number = fields.pop("castream_jax"), fields.pop("format", 1)
        if number > _FORMAT:
            raise ValueError(f"{path} was written by castream_jax {version}: upgrade castream_jax to read it.")
        fields["taps"] = tuple(fields["taps"])
        if fields.get("images") is not None:
            fields["images"] = ImageSpec(**fields["images"] | {"class_names": tuple(fields["images"]["class_names"])})
        return Description(**fields, version=version)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): export the model again.") from error


def _check_parameters(model: Model) -> None:
    """Raises a ValueError for parameters that an export, which holds float32, would change."""
    for path, leaf in jax.tree.leaves_with_path(nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat)))):
        if leaf.dtype != jnp.float32:
            raise ValueError(
                f"Parameters are exported in float32, and {jax.tree_util.keystr(path)} is {leaf.dtype}: convert them; "
                'load_backbone(…, dtype="bfloat16") lets the trunk compute in another type.'
            )


def _describe_head(head: Head) -> dict[str, Any]:
    if isinstance(head, GlobalAveragePooling):
        return {"type": "gap"}
    if isinstance(head, NativePooling):
        return {"type": "native"}
    return {"type": "stream", **{field: getattr(head, field) for field in STREAM_FIELDS}}
