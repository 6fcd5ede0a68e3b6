"""`castream <command>`: the library from a shell. Progress and errors go to stderr, results to stdout."""

import argparse
from collections.abc import Sequence
import io
import os
import sys

from castream_jax.commands import (
    bench,
    compile,
    completion,
    convert,
    data,
    doctor,
    evaluate,
    explain,
    export,
    import_network,
    methods,
    mistakes,
    models,
    protocol,
    quickstart,
    report,
    reproduce,
    train,
)
from castream_jax.plugins import import_file
from castream_jax.version import __version__

# In the order of `castream --help`.
COMMANDS = (
    quickstart,
    train,
    evaluate,
    report,
    reproduce,
    explain,
    models,
    methods,
    protocol,
    convert,
    import_network,
    export,
    bench,
    compile,
    data,
    doctor,
)

_EPILOG = """exit status:
  0    done
  2    a mistake in arguments, config, data or weights, told in one sentence;
       CASTREAM_TRACEBACK=1 shows where from
  3    training diverged
  130  interrupted: the same command continues
  141  nobody reads the output any more

Results go to stdout, progress and errors to stderr. NO_COLOR=1 takes the
colours off. Completion of commands and options in this shell (bash, zsh,
tcsh), with the extra castream_jax[completion]:

  eval "$(castream --print-completion bash)"
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        Exit status: 0; 2 after a mistake in arguments, config, data or weights, told in one sentence; 3 when training
        diverged; 4 when another process of the run died; 130 when interrupted; 141 when who read stdout has ended.
        `CASTREAM_TRACEBACK=1` shows where an error came from.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # or "·", where the terminal has none, would end a command
        sys.stdout.reconfigure(errors="replace")
    arguments, overrides = _parser().parse_known_args(argv)
    arguments.overrides = overrides
    try:
        if overrides and not arguments.takes_overrides:
            raise ValueError(f"{arguments.command} takes no {overrides[0]}: see castream {arguments.command} --help.")
        with mistakes.warnings_in_one_line():
            for file in arguments.imports:
                import_file(file)
            arguments.run(arguments)
        if sys.stdout is not None:  # closed, as by >&-: then nothing was printed
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("\ncastream: interrupted; the same command continues where it was last saved.", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        if mistakes.reader_has_gone(error):
            return 141
        if os.environ.get("CASTREAM_TRACEBACK"):
            raise
        print(f"castream: {mistakes.sentence(error, sets_fields=arguments.takes_overrides)}", file=sys.stderr)
        return 3 if isinstance(error, FloatingPointError) else 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="castream",
        description="CA-Stream: attention-based pooling for interpretable image recognition.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(takes_overrides=False, imports=())
    completion.add_option(parser)
    parser.add_argument("--version", action="version", version=f"castream_jax {__version__}")
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    for module in COMMANDS:
        module.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
