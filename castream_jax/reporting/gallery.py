"""The gallery: per image its picture, the maps laid over it, predictions and per-image numbers."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import io
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float, UInt8
import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw
import pyarrow.compute as pc
import pyarrow.parquet as pq

from castream_jax.reporting.tables import BASELINE, METRICS, head_title, method_title, ordered_heads

# Perceptually uniform, unlike jet: equal steps of saliency look equal, and a grey print keeps the order.
COLORMAP = "inferno"
OPACITY = 0.6
MIN_SIDE, MAX_SIDE = 192, 256
JPEG_QUALITY = 85


class Prediction(NamedTuple):
    head: str
    class_name: str
    correct: bool


class Tile(NamedTuple):
    """One picture of a card with its numbers; `image` is a data URI."""

    title: str
    alt: str
    image: str
    numbers: list[tuple[str, str]]


@dataclass(frozen=True)
class Card:
    """One image of the gallery. `values` (JSON: {map: {metric: number or null}}) is what the page sorts by."""

    name: str
    class_name: str
    predictions: list[Prediction]
    tiles: list[Tile]
    values: str


@dataclass(frozen=True)
class Gallery:
    """All cards, and the maps whose metrics they can be sorted by."""

    cards: list[Card]
    sortable_maps: list[str]
    has_boxes: bool
    colors: list[str]


def build_gallery(archive: Mapping[str, np.ndarray], rows: Path, summary: Mapping[str, Any]) -> Gallery:
    """Turns `evaluation/gallery.npz` into cards.

    Args:
        archive: `index` [N], `pixels` uint8 [N, H, W, 3], `label` [N], optionally `box` [N, 4] (x0, y0, x1, y1 in
            pixels), `prediction/<head>` [N] and `map/<head>/<method>` [N, h, w] in [0, 1].
        rows: folder of the per-image results `part-*.parquet`; without any the cards carry no numbers.
        summary: contents of `evaluation/summary.json`.
    """
    heads = ordered_heads(summary)
    maps = _ordered_maps(archive, heads)
    results = _results(rows, archive["index"])
    class_names = summary["class_names"]
    cards = []
    for i, (index, label) in enumerate(zip(archive["index"].tolist(), archive["label"].tolist(), strict=True)):
        pixels = archive["pixels"][i]
        box = archive["box"][i] if "box" in archive else None
        truth = _class_name(class_names, label)
        tiles = [Tile("Image", f"Image of class {truth}", data_uri(pixels, box), [])]
        values: dict[str, dict[str, float | None]] = {}
        for head, method in maps:
            title = _map_title(head, method)
            result = results.get((index, label, head, method))
            saliency = archive[f"map/{head}/{method}"][i]
            image = data_uri(overlay(pixels, saliency), box)
            tiles.append(Tile(title, f"{title} over the image of class {truth}", image, _numbers(result)))
            if result is not None:
                values[title] = {metric.key: _finite(result[metric.key]) for metric in METRICS}
                baseline = results.get((index, label, BASELINE, method))
                if head != BASELINE and baseline is not None:
                    values[_difference_title(head, method)] = {
                        metric.key: _finite(_minus(result[metric.key], baseline[metric.key])) for metric in METRICS
                    }
        predictions = [
            Prediction(head_title(head), _class_name(class_names, predicted), predicted == label)
            for head in heads
            if f"prediction/{head}" in archive
            for predicted in [int(archive[f"prediction/{head}"][i])]
        ]
        name = next((r["name"] for (at, *_), r in results.items() if at == index), f"image {index}")
        cards.append(Card(str(name), truth, predictions, tiles, json.dumps(values)))
    sortable = dict.fromkeys(title for card in cards for title in json.loads(card.values))
    colors = mpl.colormaps[COLORMAP](np.linspace(0, 1, 9), bytes=True)[:, :3]
    return Gallery(cards, list(sortable), "box" in archive, [f"rgb({r} {g} {b})" for r, g, b in colors.tolist()])


def overlay(pixels: UInt8[np.ndarray, "H W 3"], saliency: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "H W 3"]:
    """Lays a saliency map in [0, 1] over its image.

    The map is brought to image size bilinearly with half-pixel centres, as when the metrics mask with it.
    """
    height, width = pixels.shape[:2]
    enlarged = Image.fromarray(saliency.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    colors = mpl.colormaps[COLORMAP](np.asarray(enlarged).clip(0, 1))[..., :3]
    # The photograph in grey, so that colour always means saliency.
    grey = np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float64)[..., None] / 255
    return np.rint(255 * ((1 - OPACITY) * grey + OPACITY * colors)).astype(np.uint8)


def data_uri(pixels: UInt8[np.ndarray, "H W 3"], box: Float[np.ndarray, "4"] | None = None) -> str:
    """The image as a JPEG data URI, its longer side between 192 and 256 pixels, with an outlined box if given."""
    longer = max(pixels.shape[:2])
    scale = float(np.clip(longer, MIN_SIDE, MAX_SIDE)) / longer
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    if box is not None and np.isfinite(box).all():
        x0, y0, x1, y1 = (box * scale).tolist()
        draw = ImageDraw.Draw(image)
        # White within black: one of the two stands out on any photograph.
        draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline="black", width=4)
        draw.rectangle((x0, y0, x1, y1), outline="white", width=2)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _ordered_maps(archive: Mapping[str, np.ndarray], heads: Sequence[str]) -> list[tuple[str, str]]:
    """(head, method) of every map: raw attention first, then each method under GAP and the streams."""
    pairs = [key.removeprefix("map/").rpartition("/")[::2] for key in archive if key.startswith("map/")]
    methods = sorted(dict.fromkeys(method for _, method in pairs), key=lambda method: method != "attention")
    return [(head, method) for method in methods for head in heads if (head, method) in pairs]


def _results(folder: Path, index: np.ndarray) -> dict[tuple[int, int, str, str], dict[str, Any]]:
    """{(index, label, head, method): row} of the gallery's images; a multi-label image has a row per label."""
    columns = ["index", "name", "label", "head", "method", "p", "o", *(metric.key for metric in METRICS)]
    wanted = pc.field("index").isin(index.tolist())
    rows: dict[tuple[int, int, str, str], dict[str, Any]] = {}
    for path in sorted(folder.glob("part-*.parquet")):
        part = pq.ParquetFile(path).read(columns).filter(wanted)
        rows |= {(r["index"], r["label"], r["head"], r["method"]): r for r in part.to_pylist()}
    return rows


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
    return f"{method_title(method)}, {head_title(head)} − {head_title(BASELINE)}"


def _class_name(class_names: Sequence[str], label: int) -> str:
    return class_names[label] if 0 <= label < len(class_names) else f"class {label}"


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _finite(value: float | None) -> float | None:
    # JSON has no NaN.
    return value if value is not None and math.isfinite(value) else None
