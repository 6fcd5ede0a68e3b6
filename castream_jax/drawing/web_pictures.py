"""Pictures inside a page of HTML: a raster as a data URI, a figure as SVG that takes the page's colours."""

import base64
import io
import re
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

from castream_jax.drawing.style import REFERENCE_STYLE, STREAM_STYLES

INK, QUIET, RULE = "#1d2024", "#5a6068", "#d9dad6"  # of text, of labels, of grid lines

# The page's CSS variables, which know a light and a dark theme, in place of the colours that matplotlib writes.
_VARIABLES = {INK: "text", QUIET: "quiet", RULE: "rule"}
_VARIABLES |= {line.color: f"s{number}" for number, line in enumerate((REFERENCE_STYLE, *STREAM_STYLES))}

_STYLE: Any = {
    "font.size": 12,
    "text.color": INK,
    "axes.labelcolor": QUIET,
    "xtick.labelcolor": QUIET,
    "ytick.labelcolor": QUIET,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 7,
    "ytick.major.pad": 7,
    "grid.color": RULE,
    "grid.linewidth": 1,
    "lines.linewidth": 2,
    "svg.fonttype": "none",  # text stays text, in the page's font
}


def web_style(name: str) -> Any:
    """To be entered around drawing a figure and `inline_svg`; equal figures of one name are equal SVG."""
    return mpl.rc_context(_STYLE | {"svg.hashsalt": name})


def data_uri(image: Image.Image, quality: int) -> str:
    """A picture as a WebP data URI."""
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def css_color(color: str) -> str:
    """The page's variable for one of the colours that figures are drawn in."""
    return f"var(--{_VARIABLES[color]})"


def inline_svg(figure: Figure) -> str:
    """The content of an `<svg>` element, whose view box is the figure's size in points.

    An artist's `gid` `"tip:TEXT"` becomes a tooltip; fonts and joins of lines are left to the page.
    """
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    root = ElementTree.fromstring(buffer.getvalue())
    _simplify(root)
    return "".join(ElementTree.tostring(child, encoding="unicode") for child in root)


def _simplify(element: ElementTree.Element) -> None:
    """Leaves of matplotlib's SVG what a page needs: no namespaces, no ids but of definitions, a tenth of a point."""
    element.tag = element.tag.rpartition("}")[2]
    for child in list(element):
        _simplify(child)
        if child.tag in ("style", "clipPath") or (child.tag in ("g", "defs") and not len(child)):
            element.remove(child)
    for name, value in list(element.attrib.items()):
        del element.attrib[name]
        if name in ("d", "x", "y"):
            element.set(name, re.sub(r"\s*\n", "", re.sub(r"(\.\d)\d+", r"\1", value)))
        elif name == "style":
            element.set(
                name, re.sub("#[0-9a-f]{6}", lambda color: css_color(color[0]), re.sub("font[^;]*; ", "", value))
            )
        elif name.endswith("}href"):
            element.set("xlink:href", value)
        elif name == "id" and element.tag == "path":
            element.set(name, value)
        elif name == "id" and value.startswith("tip:"):
            title = ElementTree.Element("title")
            title.text = value.removeprefix("tip:")
            element.insert(0, title)
    element.tail = None
    if element.tag not in ("text", "title"):
        element.text = None
