"""Contact sheets: pictures in rows, captions below them, and above them what was predicted."""

from collections.abc import Sequence
import functools
from pathlib import Path
from typing import NamedTuple
import unicodedata

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont

_GAP = 16
_TEXT, _SMALL, _TITLE = 14, 12, 18  # font sizes, in pixels
_INK, _QUIET, _RULE = "#1d2024", "#5a6068", "#d9dad6"
_BAR, _BAR_BACKGROUND = "#cfe0f3", "#f0f0ee"


class Tile(NamedTuple):
    """A picture and the two lines of its caption."""

    image: Image.Image
    title: str
    detail: str = ""


class TileRow(NamedTuple):
    """Tiles beside each other, under a heading; none where the row belongs to the one above."""

    title: str
    tiles: list[Tile]


class Bar(NamedTuple):
    """A labelled share in [0, 1]; `bold` where it is the one that the pictures are about."""

    label: str
    share: float
    bold: bool = False


class BarChart(NamedTuple):
    title: str
    bars: list[Bar]


class Sheet(NamedTuple):
    """What a contact sheet shows, from top to bottom."""

    title: str
    charts: list[BarChart]
    rows: list[TileRow]


def draw_sheet(sheet: Sheet, tile_size: tuple[int, int], column_width: int, max_columns: int = 6) -> Image.Image:
    """The sheet as one picture.

    Args:
        sheet: what to draw; rows of more than `max_columns` tiles are wrapped.
        tile_size: width and height, in pixels, that every picture is brought to.
        column_width: of tiles and bar charts, in pixels.
        max_columns: number of tiles beside each other; there is room for three at least.
    """
    columns = min(max_columns, max(3, len(sheet.charts), *(len(row.tiles) for row in sheet.rows)))
    width = _GAP + columns * (column_width + _GAP)
    strips = [_title_strip(sheet.title, width)] if sheet.title else [_blank(width, _GAP)]
    strips += [_chart_strip(charts, width, column_width) for charts in _groups(sheet.charts, columns)]
    for row in sheet.rows:
        if row.title:
            strips.append(_heading_strip(row.title, width))
        strips += [_tile_strip(tiles, tile_size, width, column_width) for tiles in _groups(row.tiles, columns)]
    strips.append(_blank(width, _GAP))
    picture = _blank(width, sum(strip.height for strip in strips))
    y = 0
    for strip in strips:
        picture.paste(strip, (0, y))
        y += strip.height
    return picture


def _title_strip(title: str, width: int) -> Image.Image:
    strip = _blank(width, 60)
    text = _fit(title, _font(_TITLE), width - 2 * _GAP)
    ImageDraw.Draw(strip).text((_GAP, _GAP), text, _INK, _font(_TITLE))
    return strip


def _chart_strip(charts: Sequence[BarChart], width: int, column_width: int) -> Image.Image:
    strip = _blank(width, 30 + 22 * max(len(chart.bars) for chart in charts) + _GAP)
    draw = ImageDraw.Draw(strip)
    heading = _font(_TEXT, bold=True)
    for column, chart in enumerate(charts):
        x = _GAP + column * (column_width + _GAP)
        draw.text((x, 0), _fit(chart.title, heading, column_width), _INK, heading)
        for y, bar in enumerate(chart.bars):
            _draw_bar(draw, bar, x, 26 + 22 * y, column_width)
    return strip


def _draw_bar(draw: ImageDraw.ImageDraw, bar: Bar, x: int, y: int, width: int) -> None:
    font = _font(_SMALL, bold=bar.bold)
    draw.rectangle((x, y, x + width, y + 18), _BAR_BACKGROUND)
    draw.rectangle((x, y, x + round(width * bar.share), y + 18), _BAR)
    draw.text((x + 4, y + 2), _fit(bar.label, font, width - 64), _INK, font)
    draw.text((x + width - 4, y + 2), f"{100 * bar.share:.1f} %", _INK, font, anchor="ra")


def _heading_strip(title: str, width: int) -> Image.Image:
    strip = _blank(width, 34)
    draw = ImageDraw.Draw(strip)
    draw.line((_GAP, 0, width - _GAP, 0), _RULE)
    font = _font(_TEXT, bold=True)
    draw.text((_GAP, 9), _fit(title, font, width - 2 * _GAP), _INK, font)
    return strip


def _tile_strip(tiles: Sequence[Tile], size: tuple[int, int], width: int, column_width: int) -> Image.Image:
    strip = _blank(width, size[1] + _TEXT + (_SMALL + 28 if any(tile.detail for tile in tiles) else 18))
    draw = ImageDraw.Draw(strip)
    for column, tile in enumerate(tiles):
        x, below = _GAP + column * (column_width + _GAP), size[1] + 6
        picture = tile.image if tile.image.size == size else tile.image.resize(size, Image.Resampling.LANCZOS)
        strip.paste(picture, (x, 0))
        draw.text((x, below), _fit(tile.title, _font(_TEXT), column_width), _INK, _font(_TEXT))
        draw.text((x, below + _TEXT + 4), _fit(tile.detail, _font(_SMALL), column_width), _QUIET, _font(_SMALL))
    return strip


def _blank(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), "white")


def _groups(items: Sequence, size: int) -> list:
    return [items[i : i + size] for i in range(0, len(items), size)]


@functools.cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has most scripts' letters."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / name), size)


def _fit(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, shortened to a width in pixels; what cannot be drawn in one line, such as U+0085, becomes `�`."""
    text = "".join("�" if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") else letter for letter in text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
