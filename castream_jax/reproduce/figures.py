"""The paper's figures of saliency maps, over images of ours: which ones the paper shows cannot be told from it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float, Int, UInt8
import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
import numpy as np

from castream_jax.attribution import attribute
from castream_jax.backbones import fingerprint
from castream_jax.config import Config
from castream_jax.data import Source, eval_loader, open_source, record_transforms
from castream_jax.data.subset import Subset
from castream_jax.evaluation.parts import evenly_spaced
from castream_jax.model import Model
from castream_jax.protocol import get_protocol
from castream_jax.reporting.gallery import overlay
from castream_jax.reporting.tables import method_title
from castream_jax.training.step import to_unit_range
from castream_jax.workdir import replacing, write_atomically

Key = tuple[str, str]

STREAM = "ca"
_PIXELS = 224  # of a panel, in the figure


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
        ("n04152593", "n04228054"),  # screen and ski: ImageNet has no snowboard, which is what the paper calls a row
        per_class=2,
    ),
    "fig3": Panels(
        "Raw attention of CA-Stream on classes that it has not been trained on",
        ((STREAM, "attention"),),
        ("corridor", "greenhouse", "poolinside", "winecellar"),
        per_class=2,
    ),
}


def write_figure(target: str, model: Model, config: Config, folder: Path, label: str) -> list[Path]:
    """Explains some test images and writes `<target>.png`, a row per image, and its caption, `<target>.md`.

    Args:
        target: key of `FIGURES`.
        model: backbone with the heads that the figure shows.
        config: whose test split the images come from, and under whose protocol they are explained.
        folder: of the files; made.
        label: what trained the model, for the caption.
    """
    panels, protocol = FIGURES[target], get_protocol(config.evaluation.protocol)
    source = open_source(config.data, "test")
    batch = _load(source, choose_images(source, panels.classes, panels.per_class), config)
    # Of other data than the model's, raw attention is shown alone, which is of no class.
    labels = np.where(batch["label"] < model.backbone.num_classes, batch["label"], 0)
    methods = tuple(dict.fromkeys(method for _, method in panels.maps))
    maps = attribute(model, to_unit_range(batch["pixels"]), labels, methods, protocol)
    classes = [source.class_names[label] for label in batch["label"]]
    figure = compose(panels, batch["pixels"], classes, {key: np.asarray(maps[key]) for key in panels.maps})

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{target}.png", folder / f"{target}.md"]
    with replacing(paths[0]) as temporary:
        FigureCanvasAgg(figure).print_png(temporary)
    caption = (
        f"{panels.title}. Rows: {config.name}, test images of ours. Network: {label}; protocol {protocol.name} "
        f"({protocol.hash}), trunk fingerprint {fingerprint(model.backbone)}."
    )
    images = [f"- {name}: {source.name(int(i))}" for name, i in zip(classes, batch["index"], strict=True)]
    write_atomically(paths[1], "\n".join([f"![{target}]({target}.png)", "", caption, "", *images, ""]))
    return paths


def choose_images(source: Source, classes: Sequence[str], per_class: int) -> Int[np.ndarray, " images"]:
    """The first images in each of the folders `classes`, or, where there are none, as many evenly spaced ones."""
    found: dict[str, list[int]] = {name: [] for name in classes}
    for index in range(len(source)):
        for folder in Path(source.name(index)).parts[:-1]:
            if folder in found and len(found[folder]) < per_class:
                found[folder].append(index)
    chosen = [index for indices in found.values() for index in indices]
    return np.array(chosen) if chosen else evenly_spaced(len(source), len(classes) * per_class)


def compose(
    panels: Panels,
    pixels: UInt8[np.ndarray, "images h w 3"],
    class_names: Sequence[str],
    maps: Mapping[Key, Float[np.ndarray, "images h2 w2"]],
) -> Figure:
    """One row per image: the image under its class, and each map over it."""
    rows, columns = len(pixels), 1 + len(panels.maps)
    with mpl.rc_context({"font.size": 7}):
        figure = Figure(figsize=(1.2 * columns, 1.3 * rows + 0.2), dpi=_PIXELS / 1.2, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for row, image in enumerate(pixels):
            shown = [image, *(overlay(image, maps[key][row]) for key in panels.maps)]
            for column, (ax, panel) in enumerate(zip(axes[row], shown, strict=True)):
                ax.imshow(panel)
                ax.set_xticks([])
                ax.set_yticks([])
                if row == 0:
                    ax.set_title("Input image" if column == 0 else _title(*panels.maps[column - 1]))
            axes[row][0].set_ylabel(class_names[row])
    return figure


def _title(head: str, method: str) -> str:
    return method_title(method) if method == "attention" else f"{method_title(method)}\n{head.upper()}"


def _load(source: Source, indices: Int[np.ndarray, " images"], config: Config) -> Mapping[str, Any]:
    loader = eval_loader(
        Subset(source, indices),
        batch_size=len(indices),
        transforms=record_transforms(config.data, train=False),
        num_threads=config.data.num_threads,
    )
    return next(iter(loader))
