"""An experiment: the model its config describes, and the workdir it lives in."""

from collections.abc import Iterator, Mapping
import json
import os
from pathlib import Path
from typing import Any

from flax import nnx
import jax

from castream_jax.backbones import Backbone, create_backbone, load_backbone
from castream_jax.config import Config
from castream_jax.model import Model
from castream_jax.stream import CrossAttentionStream, GlobalAveragePooling

# Fields that may differ between runs in one workdir: where things lie and how fast they are read, not what is computed.
_LOCATIONS = {"data.path", "data.num_threads", "backbone.weights", "train.log_every", "train.checkpoint_every"}
# Sections that decide what is trained.
_TRAINED = ("seed", "data", "backbone", "streams", "optimizer", "train")


def open_backbone(config: Config) -> Backbone:
    """The backbone of `config.backbone`, from its weights or, to be pretrained, freshly initialised.

    Raises:
        ValueError: if streams are to be trained on a backbone without weights; and as `load_backbone`.
        FileNotFoundError: if the weight file is missing.
    """
    name, weights = config.backbone.name, config.backbone.weights
    num_classes, taps = config.backbone.num_classes, config.backbone.taps
    if weights:
        return load_backbone(name, weights, num_classes=num_classes, taps=taps)
    if config.train.target == "streams":
        raise ValueError(
            f"config.backbone.weights is empty: a stream is trained beside a pretrained {name}; "
            "give a file with --config.backbone.weights=PATH."
        )
    return create_backbone(name, num_classes, rngs=nnx.Rngs(config.seed), taps=taps)


def open_streams(config: Config, backbone: Backbone) -> dict[str, CrossAttentionStream]:
    """The freshly initialised streams of `config.streams`, each the same whatever stands beside it.

    Raises:
        ValueError: if there is none, or one has impossible fields.
    """
    if not config.streams:
        raise ValueError("config.streams is empty: name at least one stream.")
    return {
        name: CrossAttentionStream(
            backbone.stage_dims,
            start_stage=stream.start_stage,
            block=stream.block,
            num_queries=backbone.num_classes if stream.class_specific else 1,
            num_heads=stream.num_heads,
            use_bias=stream.use_bias,
            rngs=nnx.Rngs(stream.seed),
        )
        for name, stream in config.streams.items()
    }


def open_model(config: Config) -> Model:
    """The backbone with GAP and, unless the backbone itself is the target of training, the streams."""
    backbone = open_backbone(config)
    streams = open_streams(config, backbone) if config.train.target == "streams" else {}
    return Model(backbone, {"gap": GlobalAveragePooling(), **streams})


def claim_workdir(config: Config, workdir: str | os.PathLike[str]) -> Path:
    """Creates `workdir` and its `config.json`, or checks that the one there describes the same training.

    Returns:
        The absolute path: Orbax, given a relative one, fails in a thread after `save` has returned.

    Raises:
        ValueError: if the workdir belongs to another experiment; the message lists the fields that differ.
    """
    workdir = Path(workdir).resolve()
    path = workdir / "config.json"
    if path.exists():
        there = dict(_flatten(_trained_part(json.loads(path.read_text()))))
        here = dict(_flatten(_trained_part(json.loads(config.to_json()))))
        different = [
            f"{field} ({there.get(field, 'absent')!r} there, {here.get(field, 'absent')!r} here)"
            for field in sorted(there.keys() | here.keys())
            if there.get(field) != here.get(field) and field not in _LOCATIONS
        ]
        if different:
            raise ValueError(
                f"{workdir} holds another experiment; these fields differ: {', '.join(different)}. "
                "Give another --workdir, or the same fields."
            )
    elif jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        write_atomically(path, config.to_json(indent=2) + "\n")
    return workdir


def write_atomically(path: Path, text: str) -> None:
    """Replaces `path` by `text` at once: a reader or a crash never sees half of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def _trained_part(config: Mapping[str, Any]) -> dict[str, Any]:
    return {section: config.get(section) for section in _TRAINED}


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
