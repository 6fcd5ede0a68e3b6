"""`castream train`: the streams of a config, beside its frozen backbone."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from castream_jax.commands.start import OVERRIDES, add_run_options, open_run_config, start, user_path

if TYPE_CHECKING:
    from castream_jax.experiment.config import Config


def add(commands: Any) -> None:
    """Adds the parser to the sub-parsers of `castream`."""
    text = "Train the streams of a config beside its frozen backbone; run again to continue."
    command = commands.add_parser("train", help=text, description=text, epilog=OVERRIDES, allow_abbrev=False)
    command.set_defaults(run=run, takes_overrides=True)
    command.add_argument("--workdir", type=user_path, help="folder of the experiment")
    command.add_argument(
        "--print-config",
        nargs="?",
        const="text",
        choices=("text", "json"),
        help="print the config with all that is set, as text or json, and exit; --workdir is not needed then",
    )
    command.add_argument("--profile", action="store_true", help="trace steps 10 to 20 into logs/")
    add_run_options(command)


def run(arguments: argparse.Namespace) -> None:
    """Trains and prints the workdir, or prints the config."""
    if arguments.print_config:
        print(_printed(open_run_config(arguments), arguments.print_config))
        return
    if arguments.workdir is None:
        raise ValueError("There is no --workdir: give the folder in which the experiment is kept.")
    config = open_run_config(arguments)
    start(arguments.coordinator, arguments.num_processes, arguments.process_id)
    from castream_jax.runtime.processes import exit_when_peer_dies
    from castream_jax.training import train

    with exit_when_peer_dies():
        print(train(config, arguments.workdir, profile=arguments.profile))


def _printed(config: "Config", form: str) -> str:
    from castream_jax.experiment.config import config_text

    return config_text(config) if form == "text" else json.dumps(json.loads(config.to_json()), indent=2)
