"""How all figures look: sizes, colours, and what tells one line from another."""

import contextlib
from typing import Any, NamedTuple

import matplotlib as mpl

PIXELS_PER_INCH = 224 / 1.2  # a panel of saliency maps is 1.2 inches wide

GREY = "#4a4f57"
# Okabe and Ito (2008): told apart with any colour vision; line styles and markers tell them apart in grey print.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


class LineStyle(NamedTuple):
    """Colour, and lengths of dashes and gaps in line widths; none for a solid line."""

    color: str
    dashes: tuple[int, ...] = ()

    @property
    def pattern(self) -> Any:
        """The dashes as matplotlib takes them."""
        return (0, self.dashes) if self.dashes else "-"


REFERENCE_STYLE = LineStyle(GREY, (4, 2))
_DASHES = ((), (6, 2), (2, 2), (8, 2, 2, 2), (1, 1), (10, 3), (4, 1, 1, 1, 1, 1))
STREAM_STYLES = tuple(map(LineStyle, COLORS, _DASHES))

_PRINT: Any = {
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # text stays text
}


def style() -> contextlib.AbstractContextManager[None]:
    """To be entered around everything that makes a figure for print."""
    return mpl.rc_context(_PRINT)
