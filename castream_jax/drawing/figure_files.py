"""The files that a figure is written to."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from castream_jax.drawing.style import style
from castream_jax.runtime.atomic_files import replacing, write_atomically


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
