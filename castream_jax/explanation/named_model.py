"""The model that somebody names: an export, a workdir, or an architecture with its weights."""

import dataclasses
from pathlib import Path

from castream_jax.backbones import ImportedBackbone, load_backbone
from castream_jax.backbones.imported_folder import is_imported
from castream_jax.backbones.registry import get_architecture
from castream_jax.experiment.build import baseline_head, class_names_of
from castream_jax.experiment.restore import restore_model
from castream_jax.experiment.workdir import Workdir
from castream_jax.exporting.pretrained import describe_pretrained, load_pretrained
from castream_jax.model import ImageSpec, Model, imported_images
from castream_jax.protocol import Protocol, get_protocol
from castream_jax.runtime.bucket import is_bucket
from castream_jax.runtime.bucket_folder import fetch, names_in, open_folder
from castream_jax.runtime.local_path import is_address
from castream_jax.stream import GlobalAveragePooling
from castream_jax.weights.entries import imagenet_entries


def open_named_model(source: str, weights: str = "", num_classes: int | None = None) -> tuple[Model, Protocol]:
    """A model, and the protocol that its experiment is evaluated by.

    Where it was trained for several labels per image, a class's probability is the sigmoid of its own logit.

    Args:
        source: folder that `save_pretrained` wrote, or workdir of a training, either in a bucket, too; or name of a
            backbone, under GAP alone.
        weights: of a backbone: a file, or the name of published or bundled ones; by default `imagenet1k_v1`.
        num_classes: of a backbone, where they are not those of the published weights.

    Raises:
        FileNotFoundError: there is no such folder, file, or no checkpoint in the workdir.
        ValueError: the folder is neither, the backbone is unknown, or the weights are not its own.
    """
    if is_address(source) and not is_bucket(source):
        raise ValueError(f"{source} is an address, and models are read from folders: download it, and give its path.")
    folder = _in_bucket(source) if is_bucket(source) else Path(source)
    if folder.is_dir():
        if weights or num_classes:
            raise ValueError(f"{source} is a folder, which holds its own weights: --weights and --num-classes are not "
                             "for it.")  # fmt: skip
        if (folder / "model.json").is_file():
            recipe = (describe_pretrained(folder).config or {}).get("train", {})
            model = load_pretrained(folder)
            return model, _protocol("castream", recipe.get("loss", ""), model.backbone.num_classes)
        if is_imported(folder):
            backbone = load_backbone(folder)
            assert isinstance(backbone, ImportedBackbone)
            model = Model(backbone, {"gap": baseline_head(backbone)}, imported_images(backbone))
            return model, _protocol("castream", "", backbone.num_classes)
        workdir = Workdir.at(folder)
        if workdir.config.is_file():
            return _trained_model(workdir)
        raise ValueError(
            f"{source} is neither an export (it has no model.json) nor an imported trunk (no trunk.json) nor "
            f"a workdir (no {workdir.config.name})."
        )
    if folder.suffix or len(folder.parts) > 1:
        raise FileNotFoundError(f"There is no folder {source}: give an export, a workdir, or the name of a backbone.")
    get_architecture(source)
    if not weights:
        weights, *_ = imagenet_entries(source) or [""]
    if not weights:
        raise ValueError(f"No weights of {source} are published: give a file with --weights.")
    backbone = load_backbone(source, weights, num_classes=num_classes)
    return Model(backbone, {"gap": GlobalAveragePooling()}), _protocol("castream", "", backbone.num_classes)


def _in_bucket(address: str) -> Path:
    folder = open_folder(address)
    if not names_in(folder):
        raise FileNotFoundError(f"There is nothing at {address}: give an export, or a workdir.")
    return folder if Workdir.at(folder).config.is_file() else fetch(folder)


def _trained_model(workdir: Workdir) -> tuple[Model, Protocol]:
    config = workdir.open_config()
    images = ImageSpec(
        config.data.image_size, config.data.resize, class_names_of(config, workdir), config.data.exif_orientation
    )
    if config.train.target == "backbone" and workdir.backbone.is_file():
        backbone = load_backbone(
            config.backbone.name,
            workdir.backbone,
            num_classes=config.backbone.num_classes,
            taps=config.backbone.taps,
            dtype=config.backbone.dtype,
        )
        model = Model(backbone, {"gap": GlobalAveragePooling()})
    else:
        model = restore_model(config, workdir)
    model.images = dataclasses.replace(images, class_names=_fitting(images.class_names, model))
    return model, _protocol(config.evaluation.protocol, config.train.loss, model.backbone.num_classes)


def _protocol(name: str, loss: str, num_classes: int) -> Protocol:
    """The protocol of that name, for the loss that the streams were trained by; one class has no softmax."""
    protocol = get_protocol(name)
    if loss == "binary_cross_entropy" or num_classes == 1:
        return dataclasses.replace(protocol, probability="sigmoid")
    return protocol


def _fitting(names: tuple[str, ...], model: Model) -> tuple[str, ...]:
    return names if len(names) <= model.backbone.num_classes else ()
