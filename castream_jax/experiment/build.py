"""The model that a config describes."""

from collections.abc import Iterator, Mapping
import contextlib
from pathlib import Path
import re

from flax import nnx

from castream_jax.backbones import Backbone, OtherClassesError, abstract_backbone, create_backbone, load_backbone
from castream_jax.backbones.imported_folder import abstract_imported, is_imported, read_trunk
from castream_jax.data.from_config import open_source
from castream_jax.data.imagenet import imagenet_classes
from castream_jax.data.source import Source
from castream_jax.experiment.config import Config
from castream_jax.experiment.origins import config_in_place
from castream_jax.experiment.workdir import Workdir
from castream_jax.model import ImageSpec, Model
from castream_jax.runtime.seeds import seeded_rngs
from castream_jax.stream import CrossAttentionStream, GlobalAveragePooling, NativePooling


def open_backbone(config: Config) -> Backbone:
    """The backbone of `config.backbone`, from its weights or, to be pretrained, freshly initialised.

    To be fine-tuned, it has the trunk of its weights under a classifier drawn anew from `config.seed`.

    Raises:
        ValueError: if streams are to be trained on a backbone without weights, or under a classifier that nobody
            trains; and as `load_backbone`.
        FileNotFoundError: if the weight file is missing.
    """
    name, weights = config.backbone.name, config.backbone.weights
    num_classes, taps = config.backbone.num_classes, config.backbone.taps
    if config.backbone.new_classifier and (config.train.target == "streams" or not weights):
        raise ValueError(
            "config.backbone.new_classifier is for fine-tuning: it needs weights and config.train.target='backbone'; "
            "train streams beside the fine-tuned export/backbone.safetensors, without it."
        )
    if weights and is_imported(weights):
        _check_imported(config)
        name = "imported"
    if weights:
        with _fields_of("config.backbone"):
            try:
                return load_backbone(
                    name,
                    weights,
                    num_classes=num_classes,
                    taps=taps,
                    new_classifier=config.backbone.new_classifier,
                    seed=config.seed,
                    dtype=config.backbone.dtype,
                )
            except OtherClassesError as error:
                raise ValueError(_other_classes(error, config.train.target)) from error
    if config.train.target == "streams":
        raise ValueError(
            f"config.backbone.weights is empty: a stream is trained beside a pretrained {name}; "
            "give a file, or the name of published weights, with --config.backbone.weights=PATH."
        )
    with _fields_of("config.backbone"):
        return create_backbone(name, num_classes, rngs=seeded_rngs(config.seed), taps=taps)


def _check_imported(config: Config) -> None:
    """Raises a ValueError if an imported trunk is to be trained, or given images of a size that it does not take."""
    trunk, _ = read_trunk(Path(config.backbone.weights).expanduser())
    if config.train.target == "backbone":
        raise ValueError(
            f"{trunk.name} is an imported trunk, which is not trained here: fine-tune the network in PyTorch and "
            "import it again, with config.train.target='streams'."
        )
    if config.data.image_size != trunk.image_size:
        raise ValueError(
            f"config.data.image_size is {config.data.image_size}, and {trunk.name} was imported for images of "
            f"{trunk.image_size} pixels: set config.data.image_size={trunk.image_size}."
        )


def _other_classes(error: OtherClassesError, target: str) -> str:
    remedy = f"Set config.backbone.num_classes={error.num_classes}"
    if target == "backbone":
        remedy += ", or config.backbone.new_classifier=True to fine-tune under a classifier drawn anew"
    else:
        remedy += (
            "; or fine-tune first, with config.train.target='backbone' and config.backbone.new_classifier=True, and "
            "train streams beside that"
        )
    return f"{error.problem} {remedy}."


@contextlib.contextmanager
def _fields_of(section: str) -> Iterator[None]:
    """Says of a refused argument which field of the config it is."""
    try:
        yield
    except ValueError as error:
        argument = re.match(r"(num_classes|taps|dtype|start_stage|block|num_queries|num_heads|init)\b", str(error))
        if argument is None:
            raise
        raise ValueError(f"{section}.{error}") from error


def open_streams(config: Config, backbone: Backbone) -> dict[str, CrossAttentionStream]:
    """The freshly initialised streams of `config.streams`, each the same whatever stands beside it.

    Raises:
        ValueError: if there is none, or one has impossible fields.
    """
    if not config.streams:
        raise ValueError("config.streams is empty: name at least one stream.")
    streams = {}
    for name, stream in config.streams.items():
        with _fields_of(f"config.streams.{name}"):
            streams[name] = CrossAttentionStream(
                backbone.stage_dims,
                start_stage=stream.start_stage,
                block=stream.block,
                num_queries=backbone.num_classes if stream.class_specific else 1,
                num_heads=stream.num_heads,
                use_bias=stream.use_bias,
                init=stream.init,
                dropout=stream.dropout,
                rngs=seeded_rngs(stream.seed),
            )
    return streams


def open_model(config: Config) -> Model:
    """The backbone with GAP and, unless the backbone itself is the target of training, the streams."""
    backbone = open_backbone(config)
    return _with_heads(config, backbone, open_streams(config, backbone) if config.train.target == "streams" else {})


def model_to_restore(config: Config) -> Model:
    """As `open_model`, but that nothing is drawn: the streams have a `jax.ShapeDtypeStruct` for each array."""
    backbone = open_backbone(config)
    return _with_heads(config, backbone, _abstract_streams(config, backbone))


def abstract_model(config: Config) -> Model:
    """The model of `config` without values, a `jax.ShapeDtypeStruct` for each: no weights are read.

    Raises:
        ValueError: for a backbone or streams that cannot be.
    """
    fields = config.backbone
    with _fields_of("config.backbone"):
        if fields.weights and is_imported(fields.weights):
            _check_imported(config)
            backbone = abstract_imported(Path(fields.weights), fields.taps)
        else:
            backbone = abstract_backbone(fields.name, fields.num_classes, taps=fields.taps)
        backbone.dtype = fields.dtype
    return _with_heads(config, backbone, _abstract_streams(config, backbone))


def _abstract_streams(config: Config, backbone: Backbone) -> Mapping[str, CrossAttentionStream]:
    if config.train.target != "streams":
        return {}
    return nnx.eval_shape(lambda: nnx.Dict(open_streams(config, backbone)))


def _with_heads(config: Config, backbone: Backbone, streams: Mapping[str, CrossAttentionStream]) -> Model:
    images = ImageSpec(config.data.image_size, config.data.resize, exif_orientation=config.data.exif_orientation)
    return Model(backbone, {"gap": baseline_head(backbone), **streams}, images)


def baseline_head(backbone: Backbone) -> GlobalAveragePooling | NativePooling:
    """What streams are compared with: GAP or, of a network that pools otherwise, its own pooling."""
    return NativePooling() if backbone.pools_itself else GlobalAveragePooling()


def check_classes(config: Config, source: Source) -> None:
    """Raises a ValueError if the data has another number of classes than the backbone."""
    if len(source.class_names) != config.backbone.num_classes:
        raise ValueError(
            f"The data has {len(source.class_names)} classes and the backbone {config.backbone.num_classes}: "
            "set config.backbone.num_classes, or give the data the backbone was trained on."
        )


def training_class_names(config: Config, workdir: Workdir) -> tuple[str, ...] | None:
    """Names of the classes in the order of their numbers: those that the training noted or, in a workdir of an older
    release, those of the training data; None if these are not there any more."""
    names = workdir.read_class_names()
    if names is not None:
        return names
    if config.data.source == "imagenet":
        return tuple(imagenet_classes().values())
    if config.train.loss == "distillation":  # whose images are of any classes
        return None
    try:
        return tuple(open_source(config_in_place(config, workdir).data, "train").class_names)
    except (OSError, ValueError):
        return None


def class_names_of(config: Config, workdir: Workdir) -> tuple[str, ...]:
    """As `training_class_names`; where these are unknown, names from the evaluation, or from the test data, if any.

    After a distillation there are none: data that were evaluated later need not have the numbers of the backbone.
    """
    names = training_class_names(config, workdir)
    if names is not None or config.train.loss == "distillation":
        return names or ()
    if workdir.summary.is_file():
        return tuple(workdir.read_summary()["class_names"])
    try:
        return tuple(open_source(config_in_place(config, workdir).data, "test").class_names)
    except (OSError, ValueError):
        return ()


def exported_class_names(config: Config) -> tuple[str, ...] | None:
    """Names of the classes that the backbone's classifier has, where its weights are those that a workdir exported."""
    weights = Path(config.backbone.weights).expanduser()
    if not config.backbone.weights or config.backbone.new_classifier or not weights.is_file():
        return None
    workdir = Workdir.at(weights.parent.parent)
    return workdir.read_class_names() if weights.resolve() == workdir.backbone else None
