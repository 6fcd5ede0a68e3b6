"""`castream --print-completion SHELL`: what makes a shell complete commands and options."""

import argparse
from collections.abc import Sequence
from typing import Any


class PrintCompletion(argparse.Action):
    """Prints the script of a shell, which is made once and then asks no Python at each TAB, and exits."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        try:
            import shtab
        except ImportError:
            parser.exit(2, "castream: completion needs the package shtab: pip install 'castream_jax[completion]'.\n")
        print(shtab.complete(parser, str(values)))
        parser.exit()


def add_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option to `castream` itself."""
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        choices=("bash", "zsh", "tcsh"),
        help="print the completion script of a shell",
    )
