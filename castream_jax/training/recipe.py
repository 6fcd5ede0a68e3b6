"""What a training is made of, checked before anything is written: its recipe, and its data."""

from collections.abc import Iterator

from jax.sharding import Mesh
import numpy as np

from castream_jax.attribution.arguments import check_texts
from castream_jax.attribution.methods import parse_method
from castream_jax.data import Source, open_source
from castream_jax.data.from_config import describe_split
from castream_jax.data.image_paths import describe_skipped
from castream_jax.data.renumbered import check_class_names, classes_without_images, listed, numbering
from castream_jax.data.source import has_several_labels, stored_labels
from castream_jax.experiment.build import check_classes, exported_class_names
from castream_jax.experiment.config import Config
from castream_jax.experiment.origins import check_data
from castream_jax.experiment.ranges import check_evaluation_fields, check_training_fields
from castream_jax.experiment.selection import is_reported, validated_split, validation_data
from castream_jax.experiment.workdir import Workdir
from castream_jax.protocol import get_protocol
from castream_jax.runtime.devices import device_remarks
from castream_jax.runtime.mesh import check_batch_size


def check_recipe(config: Config, mesh: Mesh) -> None:
    """Raises a ValueError for fields of a training that cannot be, alone or together."""
    check_training_fields(config)
    _check_evaluation(config)
    recipe = config.train
    if recipe.loss == "distillation" and recipe.target != "streams":
        raise ValueError(
            "config.train.loss='distillation' trains streams from the predictions under GAP, and a backbone has no "
            "other head to learn from: set config.train.loss='cross_entropy'."
        )
    if recipe.loss == "binary_cross_entropy" and (recipe.mixup or recipe.cutmix):
        raise ValueError(
            "config.train.mixup and config.train.cutmix mix images of one label each, and with binary_cross_entropy "
            "they have several: set both to 0."
        )
    if recipe.ema and recipe.target != "streams":
        raise ValueError("config.train.ema averages streams, and here the backbone is trained: set it to 0.")
    if recipe.accumulate < 1 or recipe.batch_size % recipe.accumulate:
        raise ValueError(
            f"A batch of {recipe.batch_size} images does not split into {recipe.accumulate} equal parts: "
            "set config.train.accumulate to a divisor of config.train.batch_size."
        )
    validation_data(config)
    check_batch_size(recipe.batch_size // recipe.accumulate, mesh)
    if recipe.target == "streams" and recipe.loss == "binary_cross_entropy":
        for name, stream in config.streams.items():
            if stream.class_specific:
                raise ValueError(
                    f"Stream {name!r} is class-specific, which is trained from the one label of each image: "
                    "with binary_cross_entropy, images have several."
                )


def _check_evaluation(config: Config) -> None:
    """What the trained model will be explained by is refused now, and not after the training."""
    check_evaluation_fields(config)
    settings = config.evaluation
    for protocol in (settings.protocol, *settings.further_protocols):
        get_protocol(protocol)
    for method in check_texts("config.evaluation.methods", settings.methods):
        parse_method(method)


def open_training_data(config: Config, workdir: Workdir) -> Source:
    """The training split, which numbers the classes, unless a training here, or of the backbone, has done so.

    Of a distillation, whose images need no class, it does not.

    Raises:
        ValueError: if its classes or its labels do not fit the backbone, the loss, or what was trained before.
        FileNotFoundError: if there is no such data.
    """
    check_data(config, workdir)
    if config.train.loss == "distillation":  # which reads no label: the images may be of any classes, or of none
        return open_source(config.data, "train")
    names = workdir.read_class_names() or exported_class_names(config)
    source = open_source(config.data, "train", class_names=names)
    check_class_names(source.class_names)
    check_classes(config, source)
    several, loss = has_several_labels(source), config.train.loss
    if loss == "binary_cross_entropy" and not several:
        raise ValueError(
            "config.train.loss='binary_cross_entropy' is for images with several labels, and those of "
            f"{describe_split(config.data, 'train')} have one each: set config.train.loss='cross_entropy'."
        )
    labels = stored_labels(source)
    if loss == "cross_entropy" and labels is not None and (unlabelled := int(np.sum(labels < 0))):
        raise ValueError(
            f"{unlabelled} images of {describe_split(config.data, 'train')} show no class, and "
            "config.train.loss='cross_entropy' needs one of each: set config.train.loss='binary_cross_entropy'."
        )
    return source


def remarks(config: Config, source: Source) -> Iterator[str]:
    """What to know of a training before it begins."""
    yield from device_remarks()
    if skipped := describe_skipped(getattr(source, "skipped", {})):
        yield skipped
    if note := numbering(source.class_names):
        yield note
    if absent := classes_without_images(source):
        yield f"{len(absent)} of {len(source.class_names)} classes have no training image: {listed(absent)}"
    try:
        names = None if config.train.loss == "distillation" else source.class_names
        check_classes(config, open_source(config.data, "test", class_names=names))
    except ValueError as error:
        yield f"`castream evaluate` will refuse the test data: {error}"
    except OSError:
        pass  # a training needs none
    if config.train.validate_every and is_reported(config, split := validated_split(config)):
        yield (
            f"validating on the split {split!r}, which is the one that is reported: the best checkpoint is "
            + (
                "chosen by it, as config.train.validate_on says"
                if config.train.validate_on == "test"
                else "not for evaluation (config.data.validation_fraction=0.1 keeps images for that)"
            )
        )
