"""The table of attribution methods: what each computes, at which cost, and where it was published."""

from collections.abc import Iterator
import re

from castream_jax.attribution import METHODS
from castream_jax.drawing.titles import method_title
from castream_jax.plugins import load_plugins

# "Grad-CAM (Selvaraju et al., 2017): " at the beginning of a line says what other columns say.
_CITED = re.compile(r"^[^`:(]*\([^()]*\d{4}\): ")


def methods_table() -> Iterator[str]:
    """Lines of Markdown: every registered method, plugins' and imported files' among them.

    The cost is one pass through the network for all such methods together, or many more: of masked images, or, for
    Ablation-CAM at the last stage, of the head.
    """
    load_plugins("castream_jax.methods")
    yield "| name | method | map | cost | source |"
    yield "|---|---|---|---|---|"
    for name, method in METHODS.items():
        title = method_title(name)
        line = _CITED.sub("", method.line).replace("|", "\\|")
        cost = "many passes" if method.chunked else "one pass"
        yield f"| `{name}` | {title if title != name else '–'} | {line or '–'} | {cost} | {method.paper or '–'} |"
