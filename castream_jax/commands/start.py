"""What commands share before their work: options of a run, its config, and the preparation of the process."""

import argparse
import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

from castream_jax.runtime.local_path import is_address

if TYPE_CHECKING:
    from castream_jax.experiment.config import Config

OVERRIDES = "Any field of the config can be set: --config.train.epochs=3. Unknown fields are refused."


def user_path(text: str) -> str:
    """A path from the command line: a shell leaves `~` in --out=~/here as it is."""
    return os.path.expanduser(text)


def check_positive(arguments: argparse.Namespace, *names: str) -> None:
    """Raises a ValueError that names the first of these options whose number is not positive."""
    for name in names:
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be positive, got {value}.")


def check_on_disk(arguments: argparse.Namespace, name: str) -> None:
    """Raises a ValueError if this option names an address, and the command writes to this machine alone."""
    if is_address(value := getattr(arguments, name)):
        raise ValueError(
            f"castream {arguments.command} writes to this machine, and {value} is an address: give --{name} a path, "
            "and copy it there."
        )


def add_import_option(command: argparse.ArgumentParser) -> None:
    """Adds `--import`."""
    command.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        type=user_path,
        metavar="FILE",
        help="Python file that registers a backbone, method or data source of yours; may be repeated",
    )


def add_run_options(command: argparse.ArgumentParser) -> None:
    """Adds `--config` and the options that say which processes work together."""
    command.add_argument(
        "--coordinator", metavar="HOST:PORT", help="address of process 0, in a run of several processes"
    )
    command.add_argument("--num-processes", type=int, metavar="N", help="number of processes of the run")
    command.add_argument("--process-id", type=int, metavar="I", help="number of this process, from 0")
    command.add_argument(
        "--config", type=user_path, metavar="FILE", help="see configs/; by default the one in the workdir"
    )
    add_import_option(command)


def open_run_config(arguments: argparse.Namespace) -> "Config":
    """The config that `--config` names, or the workdir's, with the fields set on the command line."""
    from castream_jax.experiment.config import open_config
    from castream_jax.experiment.workdir import Workdir

    if not arguments.config and arguments.workdir is None:
        raise ValueError("There is no config: give one by --config=FILE, or the --workdir of a training.")
    path = arguments.config or Workdir.at(arguments.workdir).config
    if isinstance(path, Path) and not path.is_file():
        raise ValueError(f"There is no config {path}: give one by --config=FILE, see configs/ for examples.")
    return with_options(open_config(path), arguments)


def with_options(config: "Config", arguments: argparse.Namespace) -> "Config":
    """`config` with the fields set on the command line, and with the files of `--import` among its own."""
    from castream_jax.experiment.config import override, settle

    config = override(config, arguments.overrides)
    config.imports = (*config.imports, *arguments.imports)
    return settle(config, Path())


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    alone: bool = False,
) -> None:
    """Prepares this process for a command that computes. Must come before JAX is first used.

    Args:
        coordinator, num_processes, process_id: see `initialise_processes`.
        alone: work without other processes, even where a cluster has started several.
    """
    from absl import logging

    from castream_jax.runtime.compilation_cache import use_compilation_cache
    from castream_jax.runtime.cpu import prepare_cpu
    from castream_jax.runtime.processes import initialise_processes

    logging.set_verbosity(logging.ERROR)  # Orbax explains itself at length
    # A trace is some hundred thousand objects, which all live on: with Python's thresholds, walking through them again
    # and again is a seventh of a start.
    gc.set_threshold(100_000, 50, 100)
    prepare_cpu()
    if not alone:
        initialise_processes(coordinator, num_processes, process_id)
    use_compilation_cache()
