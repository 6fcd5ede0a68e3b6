"""`castream report`: the HTML page of an evaluated workdir."""

import argparse
from typing import Any

from castream_jax.commands.start import user_path


def add(commands: Any) -> None:
    """Adds the parser to the sub-parsers of `castream`."""
    text = "Write report/index.html for an evaluated workdir."
    command = commands.add_parser("report", help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=run)
    command.add_argument("--workdir", type=user_path, required=True, help="folder of the experiment")
    command.add_argument(
        "--compare", type=user_path, nargs="+", default=[], metavar="DIR", help="other workdirs, side by side"
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes the report and prints its path."""
    from castream_jax.experiment.workdir import Workdir
    from castream_jax.reporting import write_report

    workdir = Workdir.at(arguments.workdir)
    print(write_report(workdir, arguments.compare))
    for results in workdir.further_protocols:
        print(write_report(results))
