"""`castream explain`: what a model sees in images, as overlays, pages and a table."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import os
from pathlib import Path
import sys
from typing import TYPE_CHECKING, Any
import warnings

from castream_jax.commands.named_lists import names, read_class_names
from castream_jax.commands.start import add_import_option, check_on_disk, check_positive, start, user_path

if TYPE_CHECKING:
    from castream_jax.data.image_paths import Skipped
    from castream_jax.explanation import Explanation
    from castream_jax.model import Model
    from castream_jax.protocol import Protocol

_MODEL = "efficientnet_lite0"
_LONGEST = 200  # bytes of a folder's name: file systems have room for 255
_FILE_WIDTH = 120  # characters of the table where it does not go to a terminal


def add(commands: Any) -> None:
    """Adds the parser to the sub-parsers of `castream`."""
    text = "Explain images: predicted classes, saliency maps and the attention of every stage, drawn over the image."
    command = commands.add_parser("explain", help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=run)
    command.add_argument(
        "images",
        type=user_path,
        metavar="IMAGE",
        nargs="+",
        help="file, folder (searched through), pattern such as 'photos/*.jpg', or - for a list of files on stdin",
    )
    command.add_argument(
        "--model",
        type=user_path,
        default=_MODEL,
        metavar="DIR|NAME",
        help="a folder that save_pretrained wrote, a workdir, or a backbone such as resnet50, under GAP alone; by "
        f"default {_MODEL}, whose ImageNet weights are installed with this package",
    )
    command.add_argument(
        "--weights",
        type=user_path,
        default="",
        metavar="FILE|ENTRY",
        help="weights of a backbone given by name; by default those of ImageNet",
    )
    command.add_argument(
        "--num-classes",
        type=int,
        metavar="N",
        help="outputs of a backbone given by name, if not those of its published weights",
    )
    command.add_argument(
        "--methods",
        type=names,
        metavar="METHOD,…",
        help="attribution methods, such as gradcam,gradcam++,scorecam; by default attention,gradcam",
    )
    command.add_argument("--head", type=names, metavar="HEAD,…", help="heads to explain; by default all")
    command.add_argument(
        "--class",
        "--label",
        dest="label",
        metavar="CLASS",
        help="class to explain, by name or, where no class is called so, by number; by default each head's own "
        "prediction",
    )
    command.add_argument(
        "--class-names", type=user_path, metavar="FILE", help="names of the classes, one per line, in their order"
    )
    command.add_argument("--protocol", metavar="NAME", help="protocol of the maps, see castream protocol list")
    _add_image_options(command)
    command.add_argument("--batch-size", type=int, metavar="N", help="images per pass; by default 8 at most")
    command.add_argument("--out", type=user_path, default="explanations", metavar="DIR", help="folder for the results")
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_import_option(command)


def _add_image_options(command: argparse.ArgumentParser) -> None:
    """Adds what says how images come to the model."""
    command.add_argument(
        "--resize",
        choices=("squash", "center_crop"),
        help="how images get the model's size; by default as in its config, or squash",
    )
    command.add_argument("--image-size", type=int, metavar="PIXELS", help="side of the model's input")
    command.add_argument(
        "--exif-orientation", action="store_true", help="turn photographs as EXIF says; by default as in its config"
    )
    command.add_argument("--max-pixels", type=int, metavar="N", help="of an image to read; by default 178,956,970")


def run(arguments: argparse.Namespace) -> None:
    """Explains the images; results go to stdout, all else to stderr.

    Raises:
        ValueError: for a mistake in the arguments and, when all others are done, if images could not be read.
    """
    check_positive(arguments, "image_size", "num_classes")
    check_on_disk(arguments, "out")
    from castream_jax.experiment.ranges import LARGEST_SIDE

    if arguments.image_size is not None and arguments.image_size > LARGEST_SIDE:
        raise ValueError(f"--image-size must be at most {LARGEST_SIDE}, got {arguments.image_size}.")
    from castream_jax.data.image_paths import Skipped, list_images, readable_name

    skipped: Skipped = {}
    files = list_images(arguments.images, _paths_on_stdin(), skipped)
    start(alone=True)
    from castream_jax.data.decode import UnreadableImageError
    from castream_jax.explanation import explain_many
    from castream_jax.explanation.explain import BATCH_SIZE
    from castream_jax.explanation.explanation import as_json

    _set_limit(arguments.max_pixels)
    model, protocol = _open_model(arguments)
    failed: list[UnreadableImageError] = []
    explanations = explain_many(
        model,
        files,
        methods=arguments.methods,
        heads=arguments.head,
        label=arguments.label,
        protocol=protocol,
        batch_size=arguments.batch_size if arguments.batch_size is not None else min(len(files), BATCH_SIZE),
        unreadable=failed.append,
    )
    out = Path(arguments.out).resolve()
    results, rows = _save(explanations, out, len(files), skipped)
    sentences = [error.on_command_line("give another image") for error in failed]
    if arguments.json:
        document = {
            "model": arguments.model,
            "backbone": model.backbone.name,
            "protocol": {"name": protocol.name, "hash": protocol.hash},
            "out": str(out),
            "images": results,
            "unreadable": [
                {"image": error.name, "error": sentence} for error, sentence in zip(failed, sentences, strict=True)
            ],
        }
        print(as_json(document))
    elif rows:
        _print_table(rows)
        print(readable_name(out))
    if failed:
        count = "" if len(failed) == 1 else f"{len(failed)} of {len(files)} images cannot be read: "
        raise ValueError(count + "; ".join(sentences))


def _save(
    explanations: Iterable["Explanation"], out: Path, total: int, skipped: "Skipped"
) -> tuple[list[dict[str, Any]], list[tuple[str, ...]]]:
    """Writes each explanation as it comes; returns them as plain values, and as rows of the table."""
    from castream_jax.data.image_paths import describe_skipped
    from castream_jax.explanation.given_images import OrientationWarning
    from castream_jax.explanation.predictions_table import prediction_rows
    from castream_jax.runtime.progress import Progress

    progress = Progress("explain", total=total, unit="images")
    if skipped:
        progress.say(describe_skipped(skipped))
    results, rows, tagged = [], [], []
    folders: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OrientationWarning)  # told below, in words of the command line
        for done, explanation in enumerate(explanations, 1):
            saved = explanation.save(out / _folder(explanation.name, folders))
            results.append(explanation.as_dict() | {"files": saved})
            rows += prediction_rows(explanation)
            tagged += [explanation.name] * explanation.orientation_ignored
            progress.pace(done)
    if tagged:
        first = ", ".join(tagged[:3]) + (", …" if len(tagged) > 3 else "")
        progress.say(f"{len(tagged)} × an EXIF orientation that --exif-orientation applies: {first}")
    return results, rows


def _set_limit(max_pixels: int | None) -> None:
    from castream_jax.data.decode import allow_pixels

    if max_pixels is not None and not allow_pixels(max_pixels):
        raise ValueError(f"--max-pixels is {max_pixels}: images of so many pixels are read anyway; leave it out.")


def _paths_on_stdin() -> Iterator[str]:
    """Standard input as text, its bytes kept as Python keeps those of file names."""
    if sys.stdin is None:  # closed, as by <&-
        return
    raw = getattr(sys.stdin, "buffer", None)
    yield sys.stdin.read() if raw is None else os.fsdecode(raw.read())


def _open_model(arguments: argparse.Namespace) -> tuple["Model", "Protocol"]:
    """The model, which knows how images become its input, and the protocol of the maps."""
    from castream_jax.backbones import OtherClassesError
    from castream_jax.explanation.explain import image_spec
    from castream_jax.explanation.named_model import open_named_model
    from castream_jax.protocol import get_protocol

    try:
        model, own_protocol = open_named_model(arguments.model, arguments.weights, arguments.num_classes)
    except OtherClassesError as error:
        raise ValueError(f"{error.problem} Give --num-classes={error.num_classes}.") from error
    target = "predicted" if arguments.label is None else "label"
    protocol = dataclasses.replace(get_protocol(arguments.protocol or own_protocol), target_class=target)
    spec = image_spec(model)
    model.images = dataclasses.replace(
        spec,
        size=spec.size if arguments.image_size is None else arguments.image_size,
        resize=arguments.resize or spec.resize,
        exif_orientation=arguments.exif_orientation or spec.exif_orientation,
        class_names=read_class_names(arguments.class_names, model.backbone.num_classes) or spec.class_names,
    )
    return model, protocol


def _folder(name: str, taken: set[str]) -> str:
    """The image's name without its suffix, as long as a folder's name may be, numbered if another image has it."""
    from castream_jax.explanation.file_names import distinct

    return distinct(Path(name).stem.encode()[:_LONGEST].decode(errors="ignore") or "image", taken)


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    from castream_jax.commands.result_console import ResultConsole
    from castream_jax.explanation.predictions_table import predictions_table

    console = ResultConsole()
    if not console.is_terminal:
        console = ResultConsole(width=_FILE_WIDTH)
    console.print(predictions_table(rows))
