"""`castream compile`: the programs of a config compiled for TPUs that are not there."""

import argparse
from typing import Any

from castream_jax.commands.start import OVERRIDES, add_import_option, start, user_path, with_options


def add(commands: Any) -> None:
    """Adds the parser to the sub-parsers of `castream`."""
    text = "Compile a config for TPUs that are not there: memory, operations, exchanges, and whether it fits."
    command = commands.add_parser("compile", help=text, description=text, epilog=OVERRIDES, allow_abbrev=False)
    command.set_defaults(run=run, takes_overrides=True)
    command.add_argument("config", type=user_path, metavar="CONFIG", help="see configs/; no weights or data are read")
    command.add_argument("--topology", required=True, metavar="NAME", help="such as v5e:16x16, v5p:2x2x1 or v6e:2x2")
    command.add_argument(
        "--program", choices=("train", "evaluate"), default="train", help="a training step, or explaining a batch"
    )
    add_import_option(command)


def run(arguments: argparse.Namespace) -> None:
    """Compiles the program and prints a table."""
    import jax

    jax.config.update("jax_platforms", "cpu")  # libtpu is here to compile: JAX would look for the chips
    jax.config.update("jax_enable_compilation_cache", False)  # of these programs it can be written and not read
    from rich.table import Table

    from castream_jax.commands.result_console import ResultConsole
    from castream_jax.experiment.config import open_config

    config = with_options(open_config(arguments.config), arguments)
    start(alone=True)
    from castream_jax.ahead_of_time.compiled import compile_for

    compiled = compile_for(config, arguments.topology, arguments.program)
    table = Table("", f"{arguments.program} · {config.name} · {arguments.topology}", title_justify="left")
    for what, value in compiled.rows():
        table.add_row(what, value)
    ResultConsole().print(table)
