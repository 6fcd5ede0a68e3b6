"""The config of an experiment: every field with the paper's recipe as default, and where configs are read from."""

import builtins
from collections.abc import Iterator, Sequence
import difflib
import functools
import json
import operator
import os
from pathlib import Path
import re
import runpy
from typing import Any, TypeAlias

from absl import flags
from ml_collections import ConfigDict, config_flags

from castream_jax.experiment.imports import import_files
from castream_jax.plugins import located, neighbours
from castream_jax.weights.files import imported_name

# An ml_collections.ConfigDict; a type checker cannot know its fields.
Config: TypeAlias = Any


def base_config() -> Config:
    """Every field of an experiment with the paper's training recipe as default; a file in `configs/` fills in the rest.

    Unknown fields and values of another type are refused when they are set. The comment on each field, or above it, is
    its meaning in docs/config.md (`python tests/config_fields.py --write`).
    """
    config: Config = ConfigDict()
    config.name = "experiment"  # title of the report
    config.seed = 0  # decides order of training images, augmentation, mixing and dropout
    # Python files that register backbones, methods or sources; relative to the config, in a workdir copies in imports/
    config.imports = ()
    config.data = ConfigDict(
        {
            # class-per-folder tree; or "imagenet", "cub", "voc", "indoor67", "cifar10", "tfds", "digits", or your own;
            # "prepared": what `castream data prepare` made
            "source": "image_folder",
            "path": "",  # folder of the data; "digits" needs none
            "train_split": "train",  # name of the split to train on
            "test_split": "test",  # name of the split to evaluate on
            # part of each class held out of the training split as test split, where there is none
            "test_fraction": 0.0,
            "validation_split": "",  # name of the split to validate on
            "validation_fraction": 0.0,  # or part of each class held out of the training split to validate on
            "image_size": 224,  # side of the model's input in pixels
            # the whole image to a square of that side; or "center_crop", its middle; or "none": images have that size
            "resize": "squash",
            # in training: a random part of the image instead of `resize`, unless that is "none"
            "random_resized_crop": True,
            "flip": True,  # in training: mirror half of the images
            "crop_padding": 0,  # in training: shift by a random number of pixels, at most this many
            "brightness": 0.0,  # in training: multiply by a random factor between 1 - brightness and 1 + brightness
            # of these, the device does all that is random: the host only squashes what exceeds `device_side`
            "augment_on_device": False,
            "device_side": 0,  # in pixels; 0: 8/7 of image_size, 256 for 224
            "draft": False,  # coarser decoding of JPEGs much larger than wanted: faster, pixels differ a little
            "difficult": "ignore",  # "voc" only: objects marked difficult do not count; or "count"
            "canvases_per_digit": 1,  # "digits" only: training images made of each handwritten digit
            "seed": 0,  # decides which images are held out; of "digits" also placement and clutter
            # threads that read images, in each worker; -1: one for each core that this process may use
            "num_threads": -1,
            "num_workers": 0,  # processes that read images; 0: threads of this process do
            "on_error": "stop",  # at an unreadable image stop; or "skip" it, count it and name it
            "exif_orientation": False,  # turn photographs as their EXIF tag says; published accuracies are without
            "max_pixels": 0,  # larger images are unreadable; 0: Pillow's limit, 178,956,970
        }
    )
    config.backbone = ConfigDict(
        {
            # name of the backbone, `castream models` lists them; that of an imported trunk follows from its folder
            "name": "resnet50",
            # file, name of weights ("imagenet1k_v1") or folder of `castream import`; empty only to train the backbone
            "weights": "",
            "num_classes": 1000,  # classes of its classifier; the data must have as many
            "dtype": "float32",  # type the trunk computes in; or "tensorfloat32" or "bfloat16"
            "taps": "official",  # feature maps that streams read; or "stages", see Backbone
            "new_classifier": False,  # to fine-tune: keep the weights of the trunk alone, draw the classifier anew
        }
    )
    config.streams = ConfigDict({"ca": stream_config()})
    config.optimizer = ConfigDict(
        {
            "name": "sgd",  # SGD with momentum; or "adamw"
            "learning_rate": 0.1,  # learning rate at the beginning, after the warm-up
            "momentum": 0.9,  # momentum of "sgd"
            # added to the gradient before momentum ("sgd"), or decoupled ("adamw"), as in PyTorch
            "weight_decay": 1e-4,
            "schedule": "step",  # the learning rate falls in steps; or by a "cosine", to 0 at the end of the training
            "decay_every": 30.0,  # epochs between the steps; 0 for never
            "decay_factor": 10.0,  # by which the learning rate is divided at each step
            "warmup_epochs": 0.0,  # over which the learning rate rises linearly; a cosine falls over the others
            # images per update that the learning rate is meant for (linear scaling); 0: no scaling
            "reference_batch": 0,
        }
    )
    config.train = ConfigDict(
        {
            "target": "streams",  # what is trained: the streams, or the "backbone" under GAP (pretraining, fine-tuning)
            # loss; or "binary_cross_entropy", for several labels per image, or "distillation" of GAP's predictions
            "loss": "cross_entropy",
            "label_smoothing": 0.0,  # label smoothing of the cross entropy
            "mixup": 0.0,  # parameter of the beta distribution by which two images are blended; 0: none are
            "cutmix": 0.0,  # the same for a rectangle of another image pasted into one; 0: none is
            "clip": 0.0,  # greatest norm of a stream's gradient; 0: any
            "ema": 0.0,  # decay of a moving average of the parameters, which is evaluated instead of them; 0: none
            "ema_every": 32,  # steps between updates of the moving average
            "batch_norm": "train",  # of a backbone that is trained: statistics of the batch; or "frozen"
            "epochs": 90,  # passes over the training images
            "batch_size": 256,  # images per update, over all devices
            "accumulate": 1,  # parts in which a batch is computed, one after the other, for small devices
            "log_every": 50,  # steps between lines of the log
            "checkpoint_every": 500,  # steps between checkpoints
            "validate_every": 0,  # epochs between validations, of which the best is kept; 0: never
            # split to validate on, "validation" or "test": then the best checkpoint is chosen by what is reported, and
            # the report says so;
            # "": the validation data or, where there is none, the test split, by which no best one may be chosen
            "validate_on": "",
            "wandb": "",  # project of Weights & Biases that logs go to as well
        }
    )
    config.evaluation = ConfigDict(
        {
            "batch_size": 64,  # images per device at a time
            "methods": ("gradcam", "attention"),  # attribution methods; `castream methods` lists them
            "reference_method": "",  # method that the others are compared with, such as "gradcam"; "": none
            "baselines": True,  # evaluate random, centre and all-ones maps as well, which every method has to beat
            "sanity_images": 50,  # images of the sanity check by randomisation, at most those explained; 0: no check
            "protocol": "castream",  # the choices that turn maps into numbers; `castream protocol list`
            "further_protocols": (),  # names of protocols to evaluate under as well, with results of their own
            "max_images": 0,  # images that are explained, evenly spaced over the test split; 0: all
            "gallery": 24,  # images shown in the report
            "images_per_part": 512,  # at most this many images are computed again after an interruption
            "curves": True,  # keep the insertion and deletion curve of every row
            # memory of each device for masked images; 0: 512 MiB of a CPU's, a quarter of an accelerator's
            "memory_mib": 0,
            "checkpoint": "last",  # which checkpoint; or "best", by validation on other images than these
        }
    )
    return config.lock()


def stream_config(**fields: Any) -> Config:
    """One entry of `config.streams`: arguments of `CrossAttentionStream`, its seed, and its learning rate."""
    config: Config = ConfigDict(
        {
            "start_stage": 0,  # first stage that the stream reads, S0 … SL
            "block": "ca",  # cross attention; or "proj_ca", with projections to keys and values
            "class_specific": False,  # a query for each class instead of one
            "num_heads": 1,  # number of attention heads
            "use_bias": True,  # linear layers have a bias
            # initialisation of the paper; or "gap": the stream starts as global average pooling
            "init": "paper",
            "dropout": 0.0,  # probability that training drops an attention weight, or a value that a layer gives
            "seed": 0,  # decides its initial parameters
            "learning_rate": 0.0,  # learning rate of this stream; 0: that of config.optimizer
        }
    ).lock()
    config.update(fields)
    return config


def open_config(path: str | os.PathLike[str]) -> Config:
    """The config of a Python file (`FILE` or `FILE:ARGUMENT`, given to its `get_config`) or of a `config.json`.

    A config may import what lies beside it; what configs of several folders share lies in a `common.py` of the folder
    above. The files that it names as `imports` are imported.

    Raises:
        ValueError: if there is no such file, it cannot be run, or it holds no config or sets a field that does not
            exist; the message names file and line.
    """
    name, _, argument = os.fspath(path).partition(":")
    if argument.startswith("//"):
        raise ValueError(f"{path} is an address, and configs are read from files: download it, and give its path.")
    file = Path(name).expanduser()
    if not file.is_file():
        raise ValueError(f"There is no config {file}: see configs/ for examples.")
    try:
        if file.suffix == ".json":
            config = _from_json(json.loads(file.read_text(encoding="utf-8")))
        else:
            config = _from_python(file, argument)
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"{file} is damaged, or of another version: {reason}.") from error
    if config is None:
        raise ValueError(f"{file}: get_config returns nothing: let it end with `return config`.")
    return settle(config, file.resolve().parent) if isinstance(config, ConfigDict) else config


def settle(config: Config, folder: Path) -> Config:
    """`config`, its imports done, a `~` in its paths expanded; relative imports are those from `folder`.

    An imported trunk that is named by `backbone.weights` gives the backbone its name.

    Raises:
        ValueError: as `castream_jax.plugins.import_file`.
    """
    config.imports = import_files(config.imports, folder)
    config.data.path = os.path.expanduser(config.data.path)
    config.backbone.weights = os.path.expanduser(config.backbone.weights)
    config.backbone.name = imported_name(config.backbone.weights) or config.backbone.name
    return config


def _from_python(file: Path, argument: str) -> Config:
    with neighbours(file):
        try:
            get_config = runpy.run_path(str(file)).get("get_config")
            if get_config is None:
                raise ValueError("it has no function get_config, so it is no config")
            return get_config(argument) if argument else get_config()
        except Exception as error:  # whatever a config may raise
            said = located(_in_one_sentence(error), file)
            if isinstance(error, ImportError) and error.name == "common":
                said = f"{said.rstrip('.')}; copy configs/common.py beside it or into the folder above."
            raise ValueError(said) from error


# What a field of each type takes.
_KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text", tuple: "a tuple"}


def _in_one_sentence(error: Exception) -> Exception:
    """What ml_collections says of a field that does not exist or takes another type, in one sentence."""
    text, short = str(error), ""
    if unknown := re.search(r'Key "(\w+)" does not exist', text):
        near = re.search(r'Did you mean "(\w+)"', text)
        short = f"there is no field {unknown[1]!r} here{f': did you mean {near[1]!r}?' if near else ''}"
    elif other := re.search(r"field '(\w+)' .*?\. (.*) is of original type .* to type <class '(\w+)'>", text):
        short = (
            f"the field {other[1]!r} takes {_KINDS.get(getattr(builtins, other[3], None), other[3])}, got {other[2]!r}"
        )
    return AttributeError(short).with_traceback(error.__traceback__) if short else error


def override(config: Config, arguments: Sequence[str]) -> Config:
    """`config` with fields set by `--config.field=value` arguments.

    Raises:
        ValueError: for an unknown field, with the nearest known one, or a value of another type.
    """
    known = list(_field_names(config))
    for text in arguments:
        field, equals, _ = text.removeprefix("--config.").partition("=")
        if not text.startswith("--config.") or not equals or field not in known:
            raise ValueError(f"The config has no field to set by {text!r}: {_hint(field, known)}")
    values = flags.FlagValues()
    command = ["castream", *(_as_tuple(text, config) for text in arguments)]
    config_flags.DEFINE_config_dict(
        "config", config.copy_and_resolve_references(), flag_values=values, sys_argv=command
    )
    try:
        values(command)
    except (TypeError, flags.Error) as error:
        flag = re.search(r"flag --config\.([\w.]+)=(.*?): ", str(error))
        if flag is None:
            raise ValueError(f"A field of the config cannot take that value: {error}.") from error
        kind = _KINDS.get(type(_value(config, flag[1])), "another value")
        raise ValueError(f"config.{flag[1]} takes {kind}, got {flag[2]!r}.") from error
    return settle(values["config"].value, Path())


def config_text(config: Config) -> str:
    """`config`, a line `config.field = value` for each field, in their order; values as Python writes them."""
    return "\n".join(f"config.{field} = {_value(config, field)!r}" for field in _field_names(config))


def _as_tuple(argument: str, config: Config) -> str:
    """The argument, in which a tuple of texts may be written without quotes, as in `methods=gradcam,cam`."""
    field, _, value = argument.partition("=")
    unquoted = re.fullmatch(r"[^'\"]*,[^'\"]*", value)
    if not (unquoted and isinstance(_value(config, field.removeprefix("--config.")), tuple)):
        return argument
    return f"{field}={tuple(part.strip() for part in value.strip('()[] ').split(',') if part.strip())}"


def _value(config: Config, field: str) -> Any:
    return functools.reduce(operator.getitem, field.split("."), config)


def _from_json(saved: dict[str, Any]) -> Config:
    config = base_config()
    streams = {name: stream_config(**fields) for name, fields in saved.pop("streams").items()}
    for field in ("methods", "further_protocols"):  # JSON has no tuples
        saved["evaluation"][field] = tuple(saved["evaluation"].get(field, ()))
    saved["imports"] = tuple(saved.get("imports", ()))
    config.update(saved)
    with config.unlocked():
        config.streams = ConfigDict(streams).lock()
    return config


def _hint(field: str, known: Sequence[str]) -> str:
    """What may have been meant by a field that is not known: one like it, of its own section where there is that."""
    if within := [name for name in known if name.startswith(f"{field}.")]:
        return f"it is a section; set one of its fields, such as --config.{within[0]}=…"
    section, _, last = field.rpartition(".")
    siblings = [name for name in known if name.rpartition(".")[0] == section] if section else []
    near = difflib.get_close_matches(last, [name.rpartition(".")[2] for name in siblings], n=1)
    if siblings and not near:
        return f"the fields of {section} are {', '.join(name.rpartition('.')[2] for name in siblings)}."
    names = [f"{section}.{near[0]}"] if near else difflib.get_close_matches(field, known, n=1)
    return f"did you mean --config.{names[0]}=…?" if names else "fields are set by --config.field=value."


def _field_names(config: Config) -> Iterator[str]:
    """In their order; that of `config.items()` is the alphabet's."""
    for name, value in (config if isinstance(config, dict) else json.loads(config.to_json())).items():
        if isinstance(value, dict):
            yield from (f"{name}.{inner}" for inner in _field_names(value))
        else:
            yield name
