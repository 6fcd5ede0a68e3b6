"""What the programs here have in common: `--quick`, the JSON object at the end, and the exit when a bar is missed."""

import argparse
from collections.abc import Mapping, Sequence
import json
import sys
from typing import Any


def new_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help shows the program's docstring as it is."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def parse_known(parser: argparse.ArgumentParser, **quick: Any) -> tuple[argparse.Namespace, list[str]]:
    """The options, and what the parser does not know.

    With `--quick`, which is added here, `quick` takes the place of the defaults; options that are given count all the
    same.
    """
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small defaults, which only show that it works; options given besides count",
    )
    if "--quick" in sys.argv[1:]:
        parser.set_defaults(**quick)
    return parser.parse_known_args()


def parse(parser: argparse.ArgumentParser, **quick: Any) -> argparse.Namespace:
    """`parse_known` for a program that takes no other options."""
    arguments, others = parse_known(parser, **quick)
    if others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    return arguments


def finish(result: Mapping[str, Any], missed: Sequence[str] = ()) -> None:
    """Prints the result, all that was measured, and then exits with an error if a bar was missed."""
    print(as_json(result, missed), flush=True)
    exit_if(missed)


def as_json(result: Mapping[str, Any], missed: Sequence[str] = ()) -> str:
    """With the bars that were missed, if any, under "missed"."""
    return json.dumps({**result, "missed": list(missed)} if missed else result, indent=2)


def exit_if(missed: Sequence[str]) -> None:
    """Exits with status 1 and a sentence if there are any."""
    if missed:
        sys.exit(f"Missed: {'; '.join(missed)}.")


def above(bars: Mapping[str, float], found: Mapping[str, float], of: str) -> list[str]:
    """What of `found` is above its bar, and by how much; NaN is.

    Args:
        bars: {name: bar}.
        found: {name: value} of the same names, or more.
        of: what was compared.
    """
    return [
        f"{name} of {of}: {found[name]:.3g}, {found[name] / bar:.3g} times its bar of {bar:g}"
        for name, bar in bars.items()
        if not found[name] <= bar
    ]
