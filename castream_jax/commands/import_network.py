"""`castream import`: a PyTorch network as a frozen trunk, in a folder that needs no PyTorch."""

import argparse
from pathlib import Path
from typing import Any

from castream_jax.commands.named_lists import names, read_class_names
from castream_jax.commands.start import check_on_disk, check_positive, user_path

_EPILOG = """The folder is a backbone as any other:

  castream train --config FILE --config.backbone.weights=DIR --workdir W
  castream explain photo.jpg --model DIR

Needs the extra castream_jax[torch]; what it writes does not.
"""


def add(commands: Any) -> None:
    """Adds the parser to the sub-parsers of `castream`."""
    text = "Import a PyTorch classifier, timm's for example, as a frozen trunk that needs PyTorch no more."
    command = commands.add_parser(
        "import",
        help=text,
        description=text,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(run=run)
    command.add_argument(
        "source",
        type=user_path,
        metavar="NETWORK",
        help="timm:NAME (or timm:hf_hub:USER/MODEL, timm:FOLDER), FILE.py:FACTORY or package.module:FACTORY",
    )
    command.add_argument("--out", type=user_path, required=True, metavar="DIR", help="new folder, or an earlier import")
    command.add_argument(
        "--weights", type=user_path, default="", metavar="FILE", help="state_dict; of timm by default the published one"
    )
    command.add_argument("--num-classes", type=int, metavar="N", help="of timm, if not those of the published weights")
    command.add_argument("--image-size", type=int, metavar="PIXELS", help="side of the images; timm knows its own")
    command.add_argument("--mean", type=_colour, metavar="R,G,B", help="subtracted from pixels in [0, 1]; timm knows")
    command.add_argument("--std", type=_colour, metavar="R,G,B", help="pixels are divided by it; timm knows")
    command.add_argument(
        "--taps", type=names, metavar="A,B,…", help="sub-modules that give S0, S1, …; timm knows; the last is pooled"
    )
    command.add_argument("--classifier", metavar="NAME", help="sub-module that is given the mean of the last tap")
    command.add_argument("--class-names", type=user_path, metavar="FILE", help="a name in each line")


def run(arguments: argparse.Namespace) -> None:
    """Writes the folder, and prints its path, what was checked, and the fingerprint.

    Raises:
        ValueError: if there is no such network, it cannot be imported, or PyTorch is not installed.
    """
    check_positive(arguments, "num_classes", "image_size")
    check_on_disk(arguments, "out")
    from castream_jax.backbones import fingerprint, save_backbone
    from castream_jax.importing.import_torch import import_torch
    from castream_jax.importing.named_network import open_network

    try:
        module = open_network(arguments.source, arguments.weights, arguments.num_classes)
        backbone = import_torch(
            module,
            image_size=arguments.image_size,
            mean=arguments.mean,
            std=arguments.std,
            taps=arguments.taps,
            classifier=arguments.classifier,
            class_names=read_class_names(arguments.class_names),
        )
    except ImportError as error:
        raise ValueError(str(error)) from error
    save_backbone(backbone, arguments.out)
    trunk = backbone.trunk
    print(Path(arguments.out).resolve())
    print(f"{trunk.name}: {trunk.num_classes} classes, images of {trunk.image_size} x {trunk.image_size} pixels")
    for number, boundary in enumerate(trunk.boundaries):
        print(f"S{number}  {boundary.height} x {boundary.width} x {boundary.dim}  {boundary.name}")
    print(f"largest deviation from PyTorch {max(value for _, value in trunk.checked):.1e} of the spread")
    print(f"backbone fingerprint {fingerprint(backbone)}")


def _colour(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, text.split(",")))
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise argparse.ArgumentTypeError(f"must be three numbers, such as 0.485,0.456,0.406, got {text!r}")
    return numbers
