"""`castream models`: the backbones, as a table."""

import argparse
from typing import Any

from castream_jax.commands.start import add_import_option


def add(commands: Any) -> None:
    """Adds the parser to the sub-parsers of `castream`."""
    text = "List the backbones: parameters, stages, size of the stream, published weights (Markdown)."
    command = commands.add_parser("models", help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=run)
    add_import_option(command)


def run(arguments: argparse.Namespace) -> None:
    """Prints each row as soon as it is known."""
    from castream_jax.reporting.backbone_table import models_table

    for line in models_table():
        print(line, flush=True)
