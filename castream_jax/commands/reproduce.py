"""`castream reproduce`: tables and figures of the paper, with the runs that they need."""

import argparse
import os
from typing import Any

from castream_jax.commands.start import add_import_option, check_on_disk, start, user_path


def add(commands: Any) -> None:
    """Adds the parser to the sub-parsers of `castream`."""
    text = "Reproduce tables and figures of the paper: train and evaluate what is missing, then write them."
    epilog = "Fields are set for every experiment: --config.evaluation.batch_size=128."
    command = commands.add_parser("reproduce", help=text, description=text, epilog=epilog, allow_abbrev=False)
    command.set_defaults(run=run, takes_overrides=True)
    command.add_argument(
        "targets",
        nargs="+",
        metavar="TARGET",
        help="table1, supp-table1 … supp-table5, fig2, fig3, fig-identity, fig-depth, fig-curves, fig-placement; "
        "table1:small on the bundled digits",
    )
    command.add_argument("--workdir", type=user_path, required=True, help="folder for everything it makes")
    command.add_argument(
        "--data", type=user_path, default="", metavar="DIR", help="folder of the datasets, or of the one needed"
    )
    command.add_argument("--configs", type=user_path, metavar="DIR", help="by default the configs/ beside the package")
    add_import_option(command)
    command.add_argument("--dry-run", action="store_true", help="print the plan, with trunk passes and hours")


def run(arguments: argparse.Namespace) -> None:
    """Prints the plan, or does what is missing and prints the paths of what it wrote."""
    check_on_disk(arguments, "workdir")
    by_form: dict[str, list[str]] = {}
    for text in arguments.targets:
        target, _, form = text.partition(":")
        by_form.setdefault(form, []).append(target)
    files = tuple(map(os.path.abspath, arguments.imports))
    overrides = [*arguments.overrides, *([f"--config.imports={files!r}"] if files else [])]
    start()
    from castream_jax.commands.result_console import ResultConsole
    from castream_jax.reproduce.cost import plan_table
    from castream_jax.reproduce.make_targets import plan, reproduce
    from castream_jax.reproduce.needed_runs import Options

    requests = [
        (targets, arguments.workdir, Options(form, arguments.data, arguments.configs, overrides))
        for form, targets in by_form.items()
    ]
    if arguments.dry_run:
        steps = [step for request in requests for step in plan(*request)]
        ResultConsole(soft_wrap=True).print(plan_table(steps))
        return
    for request in requests:
        for path in reproduce(*request):
            print(path)
