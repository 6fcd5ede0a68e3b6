"""`castream evaluate`: accuracy and interpretability of a trained workdir."""

import argparse
from collections.abc import Sequence
from typing import Any

from castream_jax.commands.start import OVERRIDES, add_run_options, open_run_config, start, user_path


def add(commands: Any) -> None:
    """Adds the parser to the sub-parsers of `castream`."""
    text = "Measure accuracy and interpretability of a trained workdir, GAP beside every stream."
    command = commands.add_parser("evaluate", help=text, description=text, epilog=OVERRIDES, allow_abbrev=False)
    command.set_defaults(run=run, takes_overrides=True)
    command.add_argument("--workdir", type=user_path, required=True, help="folder of the experiment")
    add_run_options(command)


def run(arguments: argparse.Namespace) -> None:
    """Evaluates and prints the table and the path of the report."""
    config = open_run_config(arguments)
    start(arguments.coordinator, arguments.num_processes, arguments.process_id)
    from castream_jax.evaluation import evaluate
    from castream_jax.runtime.processes import exit_when_peer_dies

    with exit_when_peer_dies():
        evaluate(config, arguments.workdir)
        print_results(arguments.workdir, config.evaluation.further_protocols)


def print_results(folder: str, further_protocols: Sequence[str] = ()) -> None:
    """Prints the table of an evaluation, writes its report and prints the path, by protocol; in process 0 alone."""
    import jax

    from castream_jax.commands.result_console import ResultConsole
    from castream_jax.experiment.workdir import Workdir
    from castream_jax.reporting import metric_table, write_report

    if jax.process_index() != 0:
        return
    workdir = Workdir.at(folder)
    for results in (workdir, *map(workdir.under, further_protocols)):
        ResultConsole().print(metric_table(results.read_summary()))
        print(write_report(results))
