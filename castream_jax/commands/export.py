"""`castream export`: a trained workdir, or an earlier export, in a format for others."""

import argparse
import textwrap
from typing import Any

from castream_jax.commands.start import add_import_option, start, user_path

_FORMATS = ("pretrained", "safetensors", "stablehlo", "official")

_EPILOG = """formats:
  pretrained   model.json, the streams as an Orbax checkpoint, the trunk as
               safetensors: castream.load_pretrained
  safetensors  the same without Orbax: all arrays in model.safetensors
  stablehlo    and with a program that gives logits and attention without this
               package, on CPU, GPU and TPU
  official     each stream under the official implementation's names, for
               PyTorch: STREAM.safetensors

All but the last have a README.md, the model's card, with the metrics of the
workdir's evaluation and how to load it.
"""


def add(commands: Any) -> None:
    """Adds the parser to the sub-parsers of `castream`."""
    text = "Write a trained model for others: for this package, as safetensors, as StableHLO, or for PyTorch."
    command = commands.add_parser(
        "export",
        help=text,
        description=textwrap.fill(text, 79),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(run=run)
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--workdir", type=user_path, metavar="W", help="folder of a trained experiment")
    source.add_argument(
        "directory", type=user_path, nargs="?", metavar="DIR", help="an earlier export, or hf://user/repository"
    )
    command.add_argument("--to", required=True, choices=_FORMATS, help="see below")
    command.add_argument(
        "--out", type=user_path, required=True, metavar="DIR", help="new folder, or an earlier export to replace"
    )
    command.add_argument(
        "--checkpoint", choices=("last", "best"), help="checkpoint of the workdir; by default the last"
    )
    command.add_argument(
        "--trunk",
        choices=("include", "reference"),
        help="pretrained only: include the trunk, or refer to published weights by their name; by default include, or "
        "what DIR did",
    )
    add_import_option(command)


def run(arguments: argparse.Namespace) -> None:
    """Writes the export and prints its path.

    Raises:
        ValueError: if options do not go together, or the model cannot be exported so.
        FileNotFoundError: if there is no model.
        FileExistsError: if the folder holds something else.
    """
    if arguments.directory and arguments.checkpoint:
        raise ValueError("--checkpoint is one of a --workdir: an earlier export holds one model.")
    if arguments.trunk == "reference" and arguments.to != "pretrained":
        raise ValueError(f"--trunk reference goes with --to pretrained: {arguments.to} holds all it needs.")
    start(alone=True)
    from castream_jax.exporting.formats import FORMATS
    from castream_jax.runtime.bucket_folder import names_in, open_folder
    from castream_jax.runtime.progress import Progress

    replaces = bool(names_in(open_folder(arguments.out)))
    try:
        model, description = _open(arguments)
        path = FORMATS[arguments.to](model, description, arguments.out)
        if replaces:
            Progress("export", total=0, unit="files").say(f"{path} held an earlier export, which this one replaced")
        print(path)
    except ImportError as error:  # of an optional package
        raise ValueError(str(error)) from error


def _open(arguments: argparse.Namespace) -> Any:
    import dataclasses

    from castream_jax.exporting.description import INCLUDED, refer_to_trunk
    from castream_jax.exporting.from_workdir import open_workdir
    from castream_jax.exporting.hub import local_folder
    from castream_jax.exporting.pretrained import describe_pretrained, load_pretrained
    from castream_jax.version import __version__

    if arguments.workdir:
        trunk = "reference" if arguments.trunk == "reference" else INCLUDED
        return open_workdir(arguments.workdir, checkpoint=arguments.checkpoint or "last", trunk=trunk)
    folder = local_folder(arguments.directory)
    description = dataclasses.replace(describe_pretrained(folder), version=__version__)
    if arguments.to != "pretrained" or arguments.trunk == "include":
        description = dataclasses.replace(description, trunk=INCLUDED)
    elif arguments.trunk == "reference" and description.trunk == INCLUDED:
        weights = (description.config or {}).get("backbone", {}).get("weights", "")
        description = refer_to_trunk(description, weights)
    return load_pretrained(folder), description
