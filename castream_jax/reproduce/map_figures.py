"""Figures that a model draws on images of ours: saliency maps, attention across depth, attention as a CAM.

Which images the paper shows cannot be told from it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Array, Float, Int
import numpy as np

from castream_jax.attribution import attribute
from castream_jax.backbones import fingerprint
from castream_jax.data import Source, open_source
from castream_jax.data.from_config import evaluation_batches
from castream_jax.data.subset import Subset
from castream_jax.drawing.figure_files import save_figure
from castream_jax.drawing.overlay_grid import MapColumn, overlay_grid
from castream_jax.drawing.titles import method_title
from castream_jax.evaluation.parts import evenly_spaced
from castream_jax.experiment.config import Config
from castream_jax.model import Model, to_unit_range
from castream_jax.protocol import get_protocol
from castream_jax.reproduce.identity_figure import check_identity, draw_identity
from castream_jax.stream import CrossAttentionStream

Key = tuple[str, str]

STREAM = "ca"
_CLASSES = ("n04152593", "n04228054")  # screen and ski: ImageNet has no snowboard, which is what the paper calls a row


class Panels(NamedTuple):
    """What a figure shows.

    Attributes:
        title: its caption.
        maps: (head, method) of each column after the input image.
        classes: folders of the classes it takes images of, where the data has them; else images evenly spaced.
        per_class: images of each.
    """

    title: str
    maps: tuple[Key, ...]
    classes: tuple[str, ...]
    per_class: int


FIGURES = {
    "fig2": Panels(
        "Saliency maps under GAP and CA-Stream, and the raw attention that CA-Stream pools with",
        (
            (STREAM, "attention"),
            *((head, method) for method in ("gradcam", "gradcam++", "scorecam") for head in ("gap", STREAM)),
        ),
        _CLASSES,
        per_class=2,
    ),
    "fig3": Panels(
        "Raw attention of CA-Stream on classes that it has not been trained on",
        ((STREAM, "attention"),),
        ("corridor", "greenhouse", "poolinside", "winecellar"),
        per_class=2,
    ),
}


def write_figure(
    target: str, model: Model, config: Config, folder: Path, label: str, class_names: Sequence[str] | None = None
) -> list[Path]:
    """Explains some test images and writes `<target>.png`, `.pdf` and, with its caption, `.md`; a row per image.

    Args:
        target: key of `FIGURES`, `"fig-depth"` or `"fig-identity"`.
        model: backbone with the heads that the figure shows.
        config: whose test split the images come from, and under whose protocol they are explained.
        folder: of the files; made.
        label: what trained the model, for the caption.
        class_names: of the data that the model was trained on, where the images are of the same classes.
    """
    panels, protocol = _panels(target, model), get_protocol(config.evaluation.protocol)
    source = open_source(config.data, "test", class_names=class_names)
    batch = _load(source, choose_images(source, panels.classes, panels.per_class), config)
    pixels = to_unit_range(batch["pixels"])
    classes = [source.class_names[label] for label in batch["label"]]
    title = panels.title
    if target == "fig-identity":
        identity = check_identity(model, STREAM, pixels)
        figure = draw_identity(identity, batch["pixels"], classes)
        largest, bound = identity.difference.max(), identity.bound.max()
        title += f" Largest difference: {largest:.2e}; float32 rounding can take it to {bound:.2e}"
    else:
        # Images of unknown classes are shown under raw attention alone, which depends on no class.
        labels = np.where(batch["label"] < model.backbone.num_classes, batch["label"], 0)
        methods = tuple(dict.fromkeys(method for _, method in panels.maps))
        maps = attribute(model, pixels, labels, methods, protocol)
        columns = [MapColumn(_title(*key, maps[key]), np.asarray(maps[key])) for key in panels.maps]
        figure = overlay_grid(batch["pixels"], classes, columns)
    caption = (
        f"{title}. Rows: {config.name}, test images of ours. Network: {label}; protocol {protocol.name} "
        f"({protocol.hash}), backbone fingerprint {fingerprint(model.backbone)}."
    )
    images = [f"- {name}: {source.name(int(i))}" for name, i in zip(classes, batch["index"], strict=True)]
    return save_figure(figure, folder, target, [caption, "", *images])


def _panels(target: str, model: Model) -> Panels:
    """What a figure shows; those that depend on the model's stages are made from it."""
    if target in FIGURES:
        return FIGURES[target]
    if target == "fig-identity":
        title = (
            "Attention before its softmax and the class activation map with the query as weights (paper, eq. 5), "
            "the former as the stream computes it in float32, the latter in float64."
        )
        return Panels(title, (), _CLASSES, per_class=2)
    stream = model.heads[STREAM]
    assert isinstance(stream, CrossAttentionStream)
    stages = range(stream.start_stage, len(model.backbone.stage_dims))
    maps = tuple((STREAM, f"attention:{stage}") for stage in stages)
    title = "Raw attention of CA-Stream at each stage that it reads, each map scaled to [0, 1]"
    return Panels(title, maps, _CLASSES, per_class=3)


def choose_images(source: Source, classes: Sequence[str], per_class: int) -> Int[np.ndarray, " images"]:
    """The first images in each of the folders `classes`, or, where there are none, as many evenly spaced ones."""
    found: dict[str, list[int]] = {name: [] for name in classes}
    for index in range(len(source)):
        for folder in Path(source.name(index)).parts[:-1]:
            if folder in found and len(found[folder]) < per_class:
                found[folder].append(index)
    chosen = [index for indices in found.values() for index in indices]
    return np.array(chosen) if chosen else evenly_spaced(len(source), len(classes) * per_class)


def _title(head: str, method: str, maps: Float[Array, "images h w"]) -> str:
    name, _, stage = method.partition(":")
    if stage:
        return f"S{stage}\n{maps.shape[1]} × {maps.shape[2]}"
    return method_title(method) if name == "attention" else f"{method_title(method)}\n{head.upper()}"


def _load(source: Source, indices: Int[np.ndarray, " images"], config: Config) -> Mapping[str, Any]:
    return next(iter(evaluation_batches(config.data, Subset(source, indices), batch_size=len(indices))))
