"""The model card: `README.md` of an export, which Hugging Face's hub shows as the model's page."""

import importlib.metadata
from typing import Any

import jinja2

from castream_jax.exporting.description import INCLUDED, Description

CARD_FILE = "README.md"

_PACKAGES = ("jax", "flax", "numpy", "orbax-checkpoint", "safetensors")


def render_card(description: Description, format_: str, program_size: int | None = None) -> str:
    """The card in Markdown, under the front matter that the hub reads.

    Args:
        description: of the model.
        format_: of the export, which decides how it is loaded.
        program_size: side of the images that a StableHLO program takes.
    """
    from castream_jax.reporting.metric_table import markdown_table  # with all of the report, which loading skips

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("castream_jax.exporting", ""),
        autoescape=False,  # Markdown
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    config: Any = description.config or {}
    return environment.get_template("model_card.md.j2").render(
        about=description,
        format=format_,
        size=program_size,
        included=description.trunk == INCLUDED or format_ != "pretrained",
        name=_one_line(str(config.get("name") or f"{description.backbone} with CA-Stream")),
        config=description.config,
        table=markdown_table(description.evaluation) if description.evaluation else None,
        versions={"castream_jax": description.version}
        | {package: importlib.metadata.version(package) for package in _PACKAGES},
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
