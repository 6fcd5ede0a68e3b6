"""How all figures look, and the files they are written to."""

from collections.abc import Sequence
import contextlib
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from castream_jax.runtime.atomic_files import replacing, write_atomically

PIXELS_PER_INCH = 224 / 1.2  # a panel of saliency maps is 1.2 inches wide

GREY = "#4a4f57"
# Okabe and Ito (2008): told apart with any colour vision; line styles and markers tell them apart in grey print.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ("-", (0, (6, 2)), (0, (2, 2)), (0, (8, 2, 2, 2)), (0, (1, 1)), (0, (10, 3)), (0, (4, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_STYLE: Any = {
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
    """To be entered around everything that makes a figure."""
    return mpl.rc_context(_STYLE)


def save_figure(figure: Figure, folder: Path, target: str, caption: Sequence[str]) -> list[Path]:
    """Writes `<target>.png`, `.pdf` and, with the lines of its caption, `.md`; returns their paths.

    Args:
        figure: drawn within `style()`.
        folder: of the files; made.
        target: name of the figure.
        caption: lines of Markdown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    png, pdf, text = (folder / f"{target}.{suffix}" for suffix in ("png", "pdf", "md"))
    with style():
        with replacing(png) as temporary:
            FigureCanvasAgg(figure).print_png(temporary)
        with replacing(pdf) as temporary:  # without a date, equal figures are equal files
            FigureCanvasPdf(figure).print_pdf(temporary, metadata={"CreationDate": None})
    write_atomically(text, "\n".join([f"![{target}]({target}.png)", "", *caption, ""]))
    return [png, pdf, text]
