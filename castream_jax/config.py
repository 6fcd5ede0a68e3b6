"""The config of an experiment: every field, with the paper's recipe as default."""

from typing import Any, TypeAlias

from ml_collections import ConfigDict

# An ml_collections.ConfigDict; a type checker cannot know its fields.
Config: TypeAlias = Any


def base_config() -> Config:
    """Every field of an experiment with the paper's training recipe as default; a file in `configs/` fills in the rest.

    Unknown fields and values of another type are refused when they are set.
    """
    config: Config = ConfigDict()
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


def stream_config(**fields: Any) -> Config:
    """One entry of `config.streams`: the arguments of `CrossAttentionStream`, and the seed of its parameters."""
    config: Config = ConfigDict(
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
