"""Charts of a page: what matplotlib draws, in the page's colours, safe inside its HTML."""

import re
from xml.etree import ElementTree

import numpy as np

from castream_jax.drawing.line_chart import PLAIN, Chart, LegendEntry, Series, head_series, legend_of, line_chart

HEADS = ["gap", "a <b> #0072b2 font: 1px; 0.12345", "c"]


def chart() -> Chart:
    x = np.linspace(0, 10, 6)
    series = [head_series(head, HEADS, x, x / 100 + 0.001 * i) for i, head in enumerate(HEADS)]
    series[2] = series[2]._replace(band=(series[2].y - 0.01, series[2].y + 0.01))
    return line_chart("Rate", series, "epoch")


def test_lines_are_where_their_numbers_say():
    root = ElementTree.fromstring(f"<svg>{chart().svg.replace('xlink:href', 'href')}</svg>")
    groups = {group[0].text: group for group in root.iter("g") if len(group) and group[0].tag == "title"}
    assert set(groups) == {"GAP", *HEADS[1:]}  # tooltips, and the names whole
    points = re.findall(r"[ML] (\S+) (\S+)", groups["GAP"].findall("path")[0].attrib["d"])
    positions = np.array(points, float)
    # The axes are 296 x 186 points from (50, 196); y ends on the ticks -0.025 and 0.125.
    labels = [text.text for text in root.iter("text")]
    assert labels == ["0", "2", "4", "6", "8", "10", "epoch", "−0.025", "0", "0.025", "0.05", "0.075", "0.1", "0.125"]
    expected = np.stack([50 + 296 * np.linspace(0, 1, 6), 196 - 186 * (np.linspace(0, 0.1, 6) + 0.025) / 0.15], axis=1)
    np.testing.assert_allclose(positions, expected, atol=0.1)
    assert len(groups["GAP"].findall(".//use")) == 6  # few points are marked


def test_colours_are_variables_of_the_page_and_nothing_is_outside():
    svg = chart().svg
    assert {"var(--s0)", "var(--s1)", "var(--s2)", "var(--rule)", "var(--quiet)"} <= set(
        re.findall(r"var\([^)]*\)", svg)
    )
    styles = re.findall(r'style="([^"]*)"', svg)
    assert not any("#" in style or "font" in style for style in styles)
    assert "http" not in svg
    assert "url(" not in svg
    ids = re.findall(r' id="([^"]*)"', svg)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'xlink:href="#([^"]*)"', svg)) == set(ids)
    assert chart().svg == svg
    other = line_chart("Other", [Series("x", PLAIN, np.arange(3.0), np.arange(3.0))], "epoch")
    assert not set(ids) & set(re.findall(r' id="([^"]*)"', other.svg))  # both on one page
    assert "var(--text)" in other.svg


def test_the_legend_has_every_line_once_and_dashes_like_the_chart():
    other = line_chart("Other", [Series("x", PLAIN, np.arange(3.0), np.arange(3.0))], "epoch")
    legend = legend_of([chart(), chart(), other])
    assert legend == [
        LegendEntry("GAP", "var(--s0)", "8 4"),
        LegendEntry(HEADS[1], "var(--s1)", ""),
        LegendEntry("c", "var(--s2)", "12 4"),
    ]
    assert "stroke-dasharray: 8,4" in chart().svg
    assert chart().description.startswith("GAP from 0 to 0.1; ")


def test_a_level_line_and_a_single_point_have_axes():
    for x, y in ((np.arange(3.0), np.full(3, 0.025)), (np.zeros(1), np.zeros(1))):
        svg = line_chart("Rate", [Series("x", PLAIN, x, y)], "epoch").svg
        assert len(set(re.findall(r"<text[^>]*>([^<]*)</text>", svg))) > 4
