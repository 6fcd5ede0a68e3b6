"""`castream <command>`: the library from a shell. Progress and errors go to stderr, results to stdout."""

import argparse
from collections.abc import Callable, Iterator, Sequence
import difflib
import os
from pathlib import Path
import sys

from absl import flags
from ml_collections import ConfigDict, config_flags

from castream_jax.config import Config
from castream_jax.version import __version__

# Commands import what they need when they run: `castream --help` must not wait for Orbax, grain and matplotlib.


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        Exit status: 0; 2 after a mistake in arguments, config, data or weights, told in one sentence; 3 when training
        diverged; 130 when interrupted. `CASTREAM_TRACEBACK=1` shows where an error came from.
    """
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and not arguments.takes_config:
        parser.error(f"unknown arguments for {arguments.command}: {' '.join(rest)}")
    try:
        arguments.run(arguments, rest)
    except KeyboardInterrupt:
        print("\ncastream: interrupted; the same command continues from the last checkpoint.", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError, flags.Error) as error:
        if os.environ.get("CASTREAM_TRACEBACK"):
            raise
        print(f"castream: {' '.join(str(error).split())}", file=sys.stderr)
        return 3 if isinstance(error, FloatingPointError) else 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="castream",
        description="CA-Stream: attention-based pooling for interpretable image recognition.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"castream_jax {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(
        name: str, run: Callable[[argparse.Namespace, list[str]], None], text: str, takes_config: bool
    ) -> argparse.ArgumentParser:
        epilog = (
            "Any field of the config can be set: --config.train.epochs=3. Unknown fields are refused."
            if takes_config
            else None
        )
        command = commands.add_parser(name, help=text, description=text, epilog=epilog, allow_abbrev=False)
        command.set_defaults(run=run, takes_config=takes_config)
        if takes_config:
            command.add_argument("--config", required=True, metavar="FILE", help="config file, see configs/")
        return command

    quickstart = add("quickstart", _quickstart, "Train, evaluate and report on the bundled digits, offline.", False)
    quickstart.add_argument("--workdir", default="workdirs/quickstart", help="folder for everything it makes")
    for name, run, text in (
        ("train", _train, "Train the streams of a config beside its frozen backbone; run again to continue."),
        ("evaluate", _evaluate, "Measure accuracy and interpretability of a trained workdir, GAP beside every stream."),
    ):
        add(name, run, text, True).add_argument("--workdir", required=True, help="folder of the experiment")
    report = add("report", _report, "Write report/index.html for an evaluated workdir.", False)
    report.add_argument("--workdir", required=True, help="folder of the experiment")
    return parser


def _quickstart(arguments: argparse.Namespace, rest: list[str]) -> None:
    from castream_jax.quickstart import get_config

    _run_all(get_config(), arguments.workdir)


def _run_all(config: Config, workdir: str) -> None:
    _start()
    from castream_jax.evaluation import evaluate
    from castream_jax.training import train

    train(config, workdir)
    _print_results(evaluate(config, workdir), workdir)


def _train(arguments: argparse.Namespace, rest: list[str]) -> None:
    config = load_config(arguments.config, rest)
    _start()
    from castream_jax.training import train

    print(train(config, arguments.workdir))


def _evaluate(arguments: argparse.Namespace, rest: list[str]) -> None:
    config = load_config(arguments.config, rest)
    _start()
    from castream_jax.evaluation import evaluate

    _print_results(evaluate(config, arguments.workdir), arguments.workdir)


def _report(arguments: argparse.Namespace, rest: list[str]) -> None:
    from castream_jax.reporting import write_report

    print(write_report(Path(arguments.workdir)))


def _print_results(summary: dict, workdir: str) -> None:
    from rich.console import Console

    from castream_jax.reporting import metric_table, write_report

    Console().print(metric_table(summary))
    print(write_report(Path(workdir).resolve()))


def _start() -> None:
    from castream_jax.parallel import initialise_processes

    initialise_processes()


def load_config(path: str, overrides: Sequence[str] = ()) -> Config:
    """The config of a file, with `--config.field=value` overrides.

    Raises:
        ValueError: for a file that is missing or has no `get_config`, an unknown field, or a value of another type.
    """
    file, _, argument = path.partition(":")
    if not Path(file).is_file():
        raise ValueError(f"There is no config file {file}: see configs/ for examples.")
    stray = [text for text in overrides if not text.startswith("--config.")]
    if stray:
        raise ValueError(f"Unknown argument {stray[0]}: fields of the config are set by --config.field=value.")
    # An absolute path: ml_collections looks for relative ones next to the program, too.
    location = f"{Path(file).resolve()}:{argument}" if argument else str(Path(file).resolve())
    known = list(_field_names(_parse_config([f"--config={location}"])))
    for text in overrides:
        field, equals, _ = text.removeprefix("--config.").partition("=")
        if field not in known or not equals:
            near = difflib.get_close_matches(field, known, n=1)
            hint = (
                f"did you mean --config.{near[0]}=…?" if near else f"fields of {file} are set by --config.field=value."
            )
            raise ValueError(f"The config has no field to set by {text!r}: {hint}")
    try:
        return _parse_config([f"--config={location}", *overrides])
    except (TypeError, flags.Error) as error:
        raise ValueError(f"A field of {file} cannot take that value: {error}.") from error


def _parse_config(arguments: Sequence[str]) -> Config:
    values = flags.FlagValues()
    command = ["castream", *arguments]
    config_flags.DEFINE_config_file("config", lock_config=True, flag_values=values, sys_argv=command)
    values(command)
    return values["config"].value


def _field_names(config: Config) -> Iterator[str]:
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from (f"{name}.{inner}" for inner in _field_names(value))
        else:
            yield name


if __name__ == "__main__":
    sys.exit(main())
