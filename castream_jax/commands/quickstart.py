"""`castream quickstart`: a small experiment from training to report, offline."""

import argparse
from typing import Any

from castream_jax.commands.evaluate import print_results
from castream_jax.commands.start import OVERRIDES, add_import_option, start, user_path, with_options


def add(commands: Any) -> None:
    """Adds the parser to the sub-parsers of `castream`."""
    text = "Train, evaluate and report on the bundled digits, offline."
    command = commands.add_parser("quickstart", help=text, description=text, epilog=OVERRIDES, allow_abbrev=False)
    command.set_defaults(run=run, takes_overrides=True)
    command.add_argument(
        "--workdir", type=user_path, default="workdirs/quickstart", help="folder for everything it makes"
    )
    add_import_option(command)


def run(arguments: argparse.Namespace) -> None:
    """Trains, evaluates and prints the table and the path of the report."""
    from castream_jax.experiment.quickstart import get_config

    config = with_options(get_config(), arguments)
    start()
    from castream_jax.evaluation import evaluate
    from castream_jax.training import train

    train(config, arguments.workdir)
    evaluate(config, arguments.workdir)
    print_results(arguments.workdir)
