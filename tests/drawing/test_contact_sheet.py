"""Contact sheets: pictures where they belong, texts within their columns."""

import numpy as np
from PIL import Image
import pytest

from castream_jax.drawing.contact_sheet import Bar, BarChart, Sheet, Tile, TileRow, draw_sheet


def test_pictures_stand_in_rows_below_bars():
    tiles = [Tile(Image.new("RGB", (20, 10), (0, 40 * i, 255)), "W" * 100, "detail") for i in range(5)]
    charts = [BarChart("GAP", [Bar("cat", 0.25), Bar("dog", 0.75, bold=True)])]
    picture = draw_sheet(Sheet("A title " * 100, charts, [TileRow("Maps", tiles)]), (40, 20), 40, max_columns=4)
    pixels = np.asarray(picture)
    assert pixels.shape == (60 + 90 + 34 + 2 * 74 + 16, 16 + 4 * 56, 3)
    for i in range(5):
        y, x = 60 + 90 + 34 + 74 * (i // 4), 16 + 56 * (i % 4)
        assert (pixels[y : y + 20, x : x + 40] == (0, 40 * i, 255)).all()
    for left in range(0, picture.width, 56):  # nothing in the gaps between columns
        assert (pixels[184:, left : left + 15] == 255).all()
    light = [(pixels[60 + 26 + 22 * row + 17, 16:57] == (207, 224, 243)).all(-1).sum() for row in range(2)]
    assert light == [11, 31]


@pytest.mark.parametrize("character", ["\x85", "\n", "\x1c", "\u2028", "\u2029", "\udcff", "\0"])
def test_what_cannot_be_drawn_is_replaced_wherever_it_stands(character: str):
    def sheet(text: str) -> Sheet:
        tile = Tile(Image.new("RGB", (20, 10)), text, text)
        return Sheet(text, [BarChart(text, [Bar(text, 0.5)])], [TileRow(text, [tile])])

    drawn, expected = (draw_sheet(sheet(f"a{one}b"), (40, 20), 80) for one in (character, "\N{REPLACEMENT CHARACTER}"))
    assert drawn.tobytes() == expected.tobytes()
