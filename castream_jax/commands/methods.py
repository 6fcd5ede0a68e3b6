"""`castream methods`: the attribution methods, as a table."""

import argparse
from typing import Any

from castream_jax.commands.start import add_import_option


def add(commands: Any) -> None:
    """Adds the parser to the sub-parsers of `castream`."""
    text = "List the attribution methods: what each computes, its cost and its source (Markdown)."
    command = commands.add_parser("methods", help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=run)
    add_import_option(command)


def run(arguments: argparse.Namespace) -> None:
    """Prints the table."""
    from castream_jax.reporting.method_table import methods_table

    for line in methods_table():
        print(line)
