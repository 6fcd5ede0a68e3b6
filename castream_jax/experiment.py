"""An experiment: its config, and the model and data the config describes."""

from collections.abc import Iterator, Mapping
import json
import os
from pathlib import Path
from typing import Any

from flax import nnx
from ml_collections import ConfigDict

from castream_jax.backbones import Backbone, create_backbone, load_backbone
from castream_jax.model import Model
from castream_jax.stream import CrossAttentionStream, GlobalAveragePooling

# Fields that may differ between runs in one workdir: where things lie and how fast they are read, not what is computed.
_LOCATIONS = {"data.path", "data.num_threads", "backbone.weights", "train.log_every", "train.checkpoint_every"}
# Sections that decide what is trained.
_TRAINED = ("seed", "data", "backbone", "streams", "optimizer", "train")


def base_config() -> ConfigDict:
    """Every field of an experiment with the paper's training recipe as default; a file in `configs/` fills in the rest.

    Unknown fields and values of another type are refused when they are set.
    """
    config = ConfigDict()
    config.name = "experiment"
    config.seed = 0
    config.data = ConfigDict(
        {
            "source": "image_folder",  # class-per-folder tree; or "tfds", "digits"
            "path": "",
            "train_split": "train",
            "test_split": "test",
            "image_size": 224,
            "resize": "squash",  # or "center_crop", "none"
            "flip": True,
            "crop_padding": 0,  # random shifts by up to so many pixels in training
            "canvases_per_digit": 1,  # digits only
            "seed": 0,  # digits only: placement and clutter
            "num_threads": 2,
        }
    )
    config.backbone = ConfigDict(
        {
            "name": "resnet50",
            "weights": "",  # file, or name of bundled weights; empty only when the backbone itself is trained
            "num_classes": 1000,
        }
    )
    config.streams = ConfigDict({"ca": stream_config()})
    config.optimizer = ConfigDict(
        {
            "learning_rate": 0.1,
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "decay_every": 30,  # epochs
            "decay_factor": 10.0,
        }
    )
    config.train = ConfigDict(
        {
            "target": "streams",  # or "backbone": pretrain the trunk under GAP
            "epochs": 90,
            "batch_size": 256,
            "log_every": 50,  # steps
            "checkpoint_every": 500,  # steps
        }
    )
    config.evaluation = ConfigDict(
        {
            "batch_size": 64,
            "methods": ("gradcam", "attention"),
            "protocol": "castream",
            "max_images": 0,  # images the interpretability metrics are taken on, evenly spaced; 0: all
            "gallery": 24,  # images shown in the report
        }
    )
    return config.lock()


def stream_config(**fields: Any) -> ConfigDict:
    """One entry of `config.streams`: the arguments of `CrossAttentionStream`, and the seed of its parameters."""
    config = ConfigDict(
        {
            "start_stage": 0,
            "block": "ca",
            "class_specific": False,
            "num_heads": 1,
            "use_bias": True,
            "seed": 0,
        }
    ).lock()
    config.update(fields)
    return config


def open_backbone(config: ConfigDict) -> Backbone:
    """The backbone of `config.backbone`, from its weights or, to be pretrained, freshly initialised.

    Raises:
        ValueError: if streams are to be trained on a backbone without weights; and as `load_backbone`.
        FileNotFoundError: if the weight file is missing.
    """
    name, weights, num_classes = config.backbone.name, config.backbone.weights, config.backbone.num_classes
    if weights:
        return load_backbone(name, weights, num_classes=num_classes)
    if config.train.target == "streams":
        raise ValueError(
            f"config.backbone.weights is empty: a stream is trained beside a pretrained {name}; "
            "give a file with --config.backbone.weights=PATH."
        )
    return create_backbone(name, num_classes, rngs=nnx.Rngs(config.seed))


def open_streams(config: ConfigDict, backbone: Backbone) -> dict[str, CrossAttentionStream]:
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


def open_model(config: ConfigDict) -> Model:
    """The backbone with GAP and, unless the backbone itself is the target of training, the streams."""
    backbone = open_backbone(config)
    streams = open_streams(config, backbone) if config.train.target == "streams" else {}
    return Model(backbone, {"gap": GlobalAveragePooling(), **streams})


def claim_workdir(config: ConfigDict, workdir: str | os.PathLike[str]) -> Path:
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
    else:
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
