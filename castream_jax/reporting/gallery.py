"""The gallery: per image its picture, the maps laid over it, predictions and per-image numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import json
import math
from pathlib import Path
import re
from typing import Any, NamedTuple

from jaxtyping import Float, UInt8
import numpy as np
from PIL import Image
import pyarrow.compute as pc

from castream_jax.drawing.attention_scale import on_scale, ratio_text, stretched_to_ratios
from castream_jax.drawing.overlay import colored, css_scale
from castream_jax.drawing.titles import REFERENCE_HEAD, head_title, method_title
from castream_jax.drawing.web_pictures import data_uri
from castream_jax.experiment.results import read_parts
from castream_jax.reporting.metric_table import BASELINE_METHODS, METRICS, ordered_heads

# A page of 200 images and 7 maps each stays below 10 MB: the photograph is embedded once per card, a map as a small
# picture that the browser enlarges and lays over it. WebP at these settings: 10 kB and 2 kB (JPEG overlays: 12 kB).
PHOTO_MIN, PHOTO_MAX, PHOTO_QUALITY = 192, 256, 80
MAP_SIDE, MAP_QUALITY = 112, 90


class Verdict(NamedTuple):
    """What a head predicts for an image, and whether that is its label."""

    head: str
    class_name: str
    correct: bool


class CardPicture(NamedTuple):
    """One picture of a card with its numbers: the photograph and, unless empty, the data URI `saliency` over it.

    Of raw attention, `absolute` is the same on the scale of multiples of uniform attention, and `ratio` the largest.
    """

    title: str
    alt: str
    saliency: str
    numbers: list[tuple[str, str]]
    absolute: str = ""
    ratio: str = ""


@dataclass(frozen=True)
class Card:
    """One image of the gallery.

    Attributes:
        anchor: the card's `id` in the page.
        name, class_name: of the image.
        predictions: of each head.
        photo: data URI.
        aspect: CSS `aspect-ratio`.
        boxes: CSS `inset` of each annotated box.
        pictures: the photograph, then each map.
        values: JSON, `{map: {metric: number or null}}`, which the page sorts by.
        words: true and predicted classes, which the page searches.
    """

    anchor: str
    name: str
    class_name: str
    predictions: list[Verdict]
    photo: str
    aspect: str
    boxes: list[str]
    pictures: list[CardPicture]
    values: str

    @property
    def words(self) -> str:
        return "\n".join(dict.fromkeys([self.class_name, *(p.class_name for p in self.predictions)]))


@dataclass(frozen=True)
class Gallery:
    """All cards.

    Attributes:
        cards: one per image.
        sortable_maps: titles of the maps whose metrics the cards can be sorted by.
        class_names: that the cards can be searched for.
        depth: titles of the maps that show raw attention stage by stage.
        colors: of the scale from 0 to 1, CSS.
    """

    cards: list[Card]
    sortable_maps: list[str]
    class_names: list[str]
    depth: list[str]
    colors: list[str]

    @property
    def has_absolute(self) -> bool:
        return any(picture.absolute for card in self.cards for picture in card.pictures)

    @property
    def has_boxes(self) -> bool:
        return any(card.boxes for card in self.cards)


def build_gallery(archive: Mapping[str, np.ndarray], rows: Path, summary: Mapping[str, Any]) -> Gallery:
    """Turns `evaluation/gallery.npz` into cards.

    Args:
        archive: `index` [N], `pixels` uint8 [N, H, W, 3], `label` [N], optionally `box` [N, 4] or [N, n, 4] (x0, y0,
            x1, y1 in pixels), `prediction/<head>` [N], `map/<head>/<method>` [N, h, w] in [0, 1] and, of raw
            attention, `range/<head>/<method>` [N, 2], see `attention_ranges`.
        rows: folder of the per-image results; without any the cards carry no numbers.
        summary: contents of `evaluation/summary.json`.
    """
    heads = ordered_heads(summary)
    maps = _ordered_maps(archive, heads)
    results = _results(rows, archive["index"])
    class_names = summary["class_names"]
    cards = []
    for i, (index, label) in enumerate(zip(archive["index"].tolist(), archive["label"].tolist(), strict=True)):
        pixels = archive["pixels"][i]
        height, width = pixels.shape[:2]
        truth = class_name(class_names, label)
        pictures = [CardPicture("Image", f"Image of class {truth}", "", [])]
        values: dict[str, dict[str, float | None]] = {}
        for head, method in maps:
            title = _map_title(head, method)
            result = results.get((index, label, head, method))
            saliency = map_uri(archive[f"map/{head}/{method}"][i])
            alt = f"{title} over the image of class {truth}"
            pictures.append(CardPicture(title, alt, saliency, _numbers(result), *_absolute(archive, head, method, i)))
            if result is not None:
                values[title] = {metric.key: _finite(result[metric.key]) for metric in METRICS}
                reference = results.get((index, label, REFERENCE_HEAD, method))
                if head != REFERENCE_HEAD and reference is not None:
                    values[_difference_title(head, method)] = {
                        metric.key: _finite(_minus(result[metric.key], reference[metric.key])) for metric in METRICS
                    }
        predictions = [
            Verdict(head_title(head), class_name(class_names, predicted), predicted == label)
            for head in heads
            if f"prediction/{head}" in archive
            for predicted in [int(archive[f"prediction/{head}"][i])]
        ]
        cards.append(
            Card(
                anchor=anchor(index, label),
                name=str(next((r["name"] for (at, *_), r in results.items() if at == index), f"image {index}")),
                class_name=truth,
                predictions=predictions,
                photo=photo_uri(pixels),
                aspect=f"{width} / {height}",
                boxes=_insets(archive["box"][i], height, width) if "box" in archive else [],
                pictures=pictures,
                values=json.dumps(values),
            )
        )
    sortable = dict.fromkeys(title for card in cards for title in json.loads(card.values))
    found = sorted({word for card in cards for word in card.words.splitlines()})
    depth = [_map_title(head, method) for head, method in maps if re.fullmatch(r"attention:\d+", method)]
    return Gallery(cards, list(sortable), found, depth, css_scale())


def _absolute(archive: Mapping[str, np.ndarray], head: str, method: str, image: int) -> tuple[str, str]:
    """The picture and the words of raw attention on its own scale; empty of other maps, and in older results."""
    ranges = archive.get(f"range/{head}/{method}")
    if ranges is None:
        return "", ""
    low, high = ranges[image].tolist()
    ratios = stretched_to_ratios(archive[f"map/{head}/{method}"][image], low, high)
    return map_uri(on_scale(ratios)), ratio_text(high)


def photo_uri(pixels: UInt8[np.ndarray, "H W 3"]) -> str:
    """The image as a data URI, its longer side between 192 and 256 pixels."""
    scale = float(np.clip(max(pixels.shape[:2]), PHOTO_MIN, PHOTO_MAX)) / max(pixels.shape[:2])
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    return data_uri(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC), PHOTO_QUALITY)


def map_uri(saliency: Float[np.ndarray, "h w"]) -> str:
    """A map as a data URI in colours, its longer side 112 pixels; the browser enlarges it, bilinearly too."""
    height, width = (max(1, round(MAP_SIDE * side / max(saliency.shape))) for side in saliency.shape)
    return data_uri(Image.fromarray(np.rint(255 * colored(saliency, height, width)).astype(np.uint8)), MAP_QUALITY)


def anchor(index: int, label: int) -> str:
    """The `id` of an image's card; a multi-label image has a card per label."""
    return f"image-{index}-{label}"


def class_name(class_names: Sequence[str], label: int) -> str:
    """A class's name, or its number where it has none."""
    return class_names[label] if 0 <= label < len(class_names) else f"class {label}"


def _insets(boxes: Float[np.ndarray, "*n 4"], height: int, width: int) -> list[str]:
    """CSS `inset` (top right bottom left) of each box x0, y0, x1, y1 in pixels that has an area."""
    x0, y0, x1, y1 = boxes.reshape(-1, 4).T
    shares = np.stack([y0 / height, 1 - x1 / width, 1 - y1 / height, x0 / width], axis=1)[(x1 > x0) & (y1 > y0)]
    return [" ".join(f"{100 * share:.2f}%" for share in box) for box in shares]


def _ordered_maps(archive: Mapping[str, np.ndarray], heads: Sequence[str]) -> list[tuple[str, str]]:
    """(head, method) of every map: raw attention first, then each method under every head; no baseline maps."""
    pairs = [key.removeprefix("map/").rpartition("/")[::2] for key in archive if key.startswith("map/")]
    methods = dict.fromkeys(method for _, method in pairs if method not in BASELINE_METHODS)
    by_head = [(head, method) for method in methods for head in heads if (head, method) in pairs]
    # The order of the stages, which names and the evaluation need not have; otherwise that of the evaluation.
    return sorted(by_head, key=lambda pair: (pair[1].partition(":")[0] != "attention", _stage(pair[1])))


def _stage(method: str) -> int:
    """Of `attention:2`, 2; of all others -1."""
    found = re.fullmatch(r"attention:(\d+)(:\d+)?", method)
    return int(found[1]) if found else -1


def _results(folder: Path, index: np.ndarray) -> dict[tuple[int, int, str, str], dict[str, Any]]:
    """{(index, label, head, method): row} of the gallery's images; a multi-label image has a row per label."""
    columns = ["index", "name", "label", "head", "method", "p", "o", *(metric.key for metric in METRICS)]
    wanted = pc.field("index").isin(index.tolist())
    table = read_parts(folder, columns, wanted)
    rows = [] if table is None else table.to_pylist()
    return {(row["index"], row["label"], row["head"], row["method"]): row for row in rows}


def _numbers(result: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if result is None:
        return []
    shown = [("p", 1, 2), ("o", 1, 2), ("AD", 100, 1), ("I", 100, 1), ("D", 100, 1)]
    texts = []
    for key, unit, decimals in shown:
        value = _finite(result[key])
        texts.append((key, "–" if value is None else f"{unit * value:.{decimals}f}"))
    return texts


def _map_title(head: str, method: str) -> str:
    return f"{method_title(method)}, {head_title(head)}"


def _difference_title(head: str, method: str) -> str:
    return f"{method_title(method)}, {head_title(head)} − {head_title(REFERENCE_HEAD)}"


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _finite(value: float | None) -> float | None:
    # JSON has no NaN.
    return value if value is not None and math.isfinite(value) else None
