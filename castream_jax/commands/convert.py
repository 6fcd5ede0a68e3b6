"""`castream convert`: a backbone's weights, checked and written as safetensors."""

import argparse
from pathlib import Path
from typing import Any

from castream_jax.commands.start import add_import_option, check_on_disk, check_positive, user_path


def add(commands: Any) -> None:
    """Adds the parser to the sub-parsers of `castream`."""
    text = "Check a backbone's weights against its architecture and write them as safetensors, in torchvision's names."
    command = commands.add_parser("convert", help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=run)
    command.add_argument(
        "source",
        type=user_path,
        metavar="SOURCE",
        help="a .pth, .pt, .th, .npz or .safetensors file, or an entry such as imagenet1k_v1",
    )
    command.add_argument("--arch", required=True, metavar="NAME", help="backbone, such as resnet50")
    command.add_argument(
        "--out", type=user_path, required=True, metavar="PATH.safetensors|DIR", help="file, or folder for it"
    )
    command.add_argument("--num-classes", type=int, metavar="N", help="outputs, if not those of the published weights")
    add_import_option(command)


def run(arguments: argparse.Namespace) -> None:
    """Writes the file and prints its path and the backbone's fingerprint.

    Raises:
        ValueError: if the weights are not the architecture's, or `--out` is no place for them.
    """
    check_positive(arguments, "num_classes")
    check_on_disk(arguments, "out")
    from castream_jax.backbones import OtherClassesError, fingerprint, load_backbone, save_torch_weights
    from castream_jax.weights.files import TRUNK_FILE

    out = Path(arguments.out)
    if out.suffix in (".pth", ".pt", ".th", ".npz"):
        raise ValueError(f"{out}: convert writes safetensors, give --out a file of that suffix or a folder.")
    if (out / "model.json").exists():
        raise ValueError(f"{out} holds an exported model, whose trunk stays as it is: give --out another folder.")
    try:
        backbone = load_backbone(arguments.arch, arguments.source, num_classes=arguments.num_classes)
    except OtherClassesError as error:
        raise ValueError(f"{error.problem} Give --num-classes={error.num_classes}.") from error
    path = out if out.suffix == ".safetensors" else out / TRUNK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    save_torch_weights(backbone, path)
    print(f"{path.resolve()}\nbackbone fingerprint {fingerprint(backbone)}")
