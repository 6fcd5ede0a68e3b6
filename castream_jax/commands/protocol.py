"""`castream protocol`: what the evaluation protocols choose, and where two differ."""

import argparse
from typing import Any


def add(commands: Any) -> None:
    """Adds the parser to the sub-parsers of `castream`."""
    text = "Show the evaluation protocols: all of them, the choices of one, or where two differ (Markdown)."
    command = commands.add_parser("protocol", help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=run)
    actions = command.add_subparsers(required=True, dest="action", metavar="ACTION")
    for action, names, text in (
        ("list", (), "Name, hash and particular choices of every protocol."),
        ("show", ("NAME",), "Every choice of one protocol, and its hash."),
        ("diff", ("A", "B"), "The choices that differ between two protocols."),
    ):
        parser = actions.add_parser(action, help=text, description=text, allow_abbrev=False)
        for name in names:
            parser.add_argument("names", metavar=name, action="append")


def run(arguments: argparse.Namespace) -> None:
    """Prints the table."""
    from castream_jax.reporting.protocol_tables import differences_table, protocol_table, protocols_table

    tables = {"list": protocols_table, "show": protocol_table, "diff": differences_table}
    for line in tables[arguments.action](*getattr(arguments, "names", ())):
        print(line)
