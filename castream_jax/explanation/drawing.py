"""An explanation on one sheet (PNG) and on one page (HTML)."""

from collections.abc import Sequence
import functools
from pathlib import Path
from typing import NamedTuple

import jinja2
import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from castream_jax.explanation.explanation import Explanation, Prediction
from castream_jax.reporting.gallery import COLORMAP, data_uri
from castream_jax.reporting.tables import head_title, method_title
from castream_jax.reporting.templates import html_environment

_QUALITY, _SIDE = 90, 256  # of a picture on the page
_WIDTH = 224  # of a tile on the sheet, in pixels
_GAP = 16
_TEXT, _SMALL, _TITLE = 14, 12, 18  # font sizes, in pixels
_INK, _QUIET, _RULE = "#1d2024", "#5a6068", "#d9dad6"


class Tile(NamedTuple):
    """A picture with what it shows; `key` is (head, method) of a map, (head, stage, attention head) of attention."""

    image: Image.Image
    title: str
    detail: str = ""
    key: tuple = ()


class Row(NamedTuple):
    title: str
    tiles: list[Tile]


def rows_of(explanation: Explanation) -> list[Row]:
    """The image with its maps, then the attention of each stream, stage by stage."""
    maps = [
        Tile(
            explanation.overlay(head, method),
            f"{method_title(method)}, {head_title(head)}",
            "" if "attention" in method else f"for {explanation.explained(head).title}",
            (head, method),
        )
        for head, method in explanation.maps
    ]
    height, width = explanation.pixels.shape[:2]
    rows = [Row("Saliency", [Tile(explanation.picture, "Image", f"seen at {width} × {height}"), *maps])]
    for head in explanation.attention:
        title = f"Attention of {head_title(head)}"
        tiles = [_attention_tile(explanation, head, *part) for part in explanation.attention_parts(head)]
        stages = len(explanation.attention[head])
        if len(tiles) == stages:
            rows.append(Row(title, tiles))
        else:  # a row for each stage: the mean over attention heads, and each of them
            rows += [Row(title if not i else "", part) for i, part in enumerate(_split(tiles, len(tiles) // stages))]
    return rows


def _shown(explanation: Explanation, head: str) -> list[Prediction]:
    """The most probable classes and, if it is not among them, the one that is explained."""
    return list(dict.fromkeys([*explanation.predictions(head), explanation.explained(head)]))


def _attention_tile(explanation: Explanation, head: str, stage: int, number: int | None) -> Tile:
    count, height, width = explanation.attention[head][stage].shape
    if number is not None:
        title = f"S{stage}, attention head {number}"
    else:
        title = f"S{stage}" if count == 1 else f"S{stage}, mean of {count} heads"
    image = explanation.attention_overlay(head, stage, number)
    return Tile(image, title, f"{width} × {height} positions", (head, stage, number))


def html(explanation: Explanation, rows: list[Row]) -> str:
    """A fragment for a notebook: it needs nothing from outside and takes the colours of the page around it."""
    pictures = [
        (row.title, [(data_uri(_shrunk(tile.image), _QUALITY), tile.title, tile.detail) for tile in row.tiles])
        for row in rows
    ]
    heads = {head: _shown(explanation, head) for head in explanation.probabilities}
    colors = mpl.colormaps[COLORMAP](np.linspace(0, 1, 9), bytes=True)[:, :3].tolist()
    return _template("explanation.html.j2").render(
        name=explanation.name,
        title=Path(explanation.name).name,
        heads=heads,
        classes=explanation.classes,
        rows=pictures,
        colors=[f"rgb({r} {g} {b})" for r, g, b in colors],
    )


def _shrunk(image: Image.Image) -> Image.Image:
    smaller = image.copy()
    smaller.thumbnail((_SIDE, _SIDE))
    return smaller


def page(explanation: Explanation, rows: list[Row]) -> str:
    """The fragment as a page of its own."""
    return _template("explanation_page.html.j2").render(title=Path(explanation.name).name, body=html(explanation, rows))


@functools.cache
def _template(name: str) -> jinja2.Template:
    environment = html_environment("castream_jax.reporting")
    environment.filters["head_title"] = head_title
    return environment.get_template(name)


def overview(explanation: Explanation, rows: list[Row]) -> Image.Image:
    """Everything on one sheet: name, predictions of each head, and the rows of tiles."""
    heads = list(explanation.probabilities)
    ratio = explanation.picture.height / explanation.picture.width
    tile_size = (_WIDTH, max(1, round(_WIDTH * ratio))) if ratio <= 1.5 else (round(1.5 * _WIDTH / ratio), 336)
    columns = min(6, max(3, len(heads), *(len(row.tiles) for row in rows)))
    width = _GAP + columns * (_WIDTH + _GAP)
    tile_height = tile_size[1] + _TEXT + _SMALL + 28
    lines = max(len(_shown(explanation, head)) for head in heads)
    predictions_height = 30 + lines * 22
    head_rows = _split(heads, columns)
    tile_rows = [
        (row.title if not i else "", part) for row in rows for i, part in enumerate(_split(row.tiles, columns))
    ]
    height = 60 + len(head_rows) * (predictions_height + _GAP)
    height += sum(tile_height + (34 if title else 0) for title, _ in tile_rows) + _GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), _fit(Path(explanation.name).name, _font(_TITLE), width - 2 * _GAP), _INK, _font(_TITLE))
    y = 60
    for part in head_rows:
        for column, head in enumerate(part):
            _draw_predictions(draw, explanation, head, _GAP + column * (_WIDTH + _GAP), y)
        y += predictions_height + _GAP
    for title, tiles in tile_rows:
        if title:
            draw.line((_GAP, y, width - _GAP, y), _RULE)
            draw.text((_GAP, y + 9), title, _INK, _font(_TEXT, bold=True))
            y += 34
        for column, tile in enumerate(tiles):
            x = _GAP + column * (_WIDTH + _GAP)
            sheet.paste(tile.image.resize(tile_size, Image.Resampling.LANCZOS), (x, y))
            below = y + tile_size[1] + 6
            draw.text((x, below), _fit(tile.title, _font(_TEXT), _WIDTH), _INK, _font(_TEXT))
            draw.text((x, below + _TEXT + 4), _fit(tile.detail, _font(_SMALL), _WIDTH), _QUIET, _font(_SMALL))
        y += tile_height
    return sheet


def _draw_predictions(draw: ImageDraw.ImageDraw, explanation: Explanation, head: str, x: int, y: int) -> None:
    draw.text((x, y), _fit(head_title(head), _font(_TEXT, bold=True), _WIDTH), _INK, _font(_TEXT, bold=True))
    y += 26
    for prediction in _shown(explanation, head):
        bold = prediction.number == explanation.classes[head]
        font = _font(_SMALL, bold=bold)
        percent = f"{100 * prediction.probability:.1f} %"
        draw.rectangle((x, y, x + _WIDTH, y + 18), "#f0f0ee")
        draw.rectangle((x, y, x + round(_WIDTH * prediction.probability), y + 18), "#cfe0f3")
        draw.text((x + 4, y + 2), _fit(prediction.title, font, _WIDTH - 64), _INK, font)
        draw.text((x + _WIDTH - 4, y + 2), percent, _INK, font, anchor="ra")
        y += 22


def _split(items: Sequence, size: int) -> list:
    return [items[i : i + size] for i in range(0, len(items), size)]


@functools.cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has most scripts' letters."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / name), size)


def _fit(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, shortened to a width in pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
