"""`castream explain`: what a model sees in images, as overlays, pages and a table."""

import argparse
from collections.abc import Iterator, Sequence
import dataclasses
import glob
import json
import os
from pathlib import Path
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from castream_jax.explanation import Explanation

_SHOWN = 3  # predictions in the table
_FILE_WIDTH = 120  # of the table where it does not go to a terminal, in characters


def add(commands: Any) -> None:
    """Adds the command's parser."""
    text = "Explain images: predicted classes, saliency maps and the attention of every stage, drawn over the image."
    command = commands.add_parser("explain", help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=run)
    command.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="file, folder (searched through), pattern such as 'photos/*.jpg', or - for a list of files on stdin",
    )
    command.add_argument(
        "--model",
        required=True,
        metavar="DIR|NAME",
        help="a folder that save_pretrained wrote, a workdir, or a backbone such as resnet50, under GAP alone",
    )
    command.add_argument(
        "--weights", default="", metavar="FILE|ENTRY", help="of a backbone given by name; by default imagenet1k_v1"
    )
    command.add_argument(
        "--num-classes", type=int, metavar="N", help="of such a backbone, if not those of the published weights"
    )
    command.add_argument(
        "--methods",
        type=_list,
        metavar="METHOD,…",
        help="attribution methods, such as gradcam,gradcam++,scorecam; by default attention,gradcam",
    )
    command.add_argument("--head", type=_list, metavar="HEAD,…", help="heads to explain; by default all")
    command.add_argument(
        "--class",
        "--label",
        dest="label",
        metavar="CLASS",
        help="class to explain, by number or name; by default each head's own prediction",
    )
    command.add_argument("--class-names", metavar="FILE", help="names of the classes, one per line, in their order")
    command.add_argument("--protocol", metavar="NAME", help="choices behind the maps, see castream protocol list")
    command.add_argument(
        "--resize",
        choices=("squash", "center_crop"),
        help="how images get the model's size; by default as in its config, or squash",
    )
    command.add_argument("--image-size", type=int, metavar="PIXELS", help="side of the model's input")
    command.add_argument("--batch-size", type=int, metavar="N", help="images per pass; by default 8 at most")
    command.add_argument("--out", default="explanations", metavar="DIR", help="folder for the results")
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(arguments: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Explains the images; results go to stdout, all else to stderr.

    Raises:
        ValueError: for a mistake in the arguments and, when all others are done, if images could not be read.
    """
    files = list_images(arguments.images, sys.stdin)
    from absl import logging

    logging.set_verbosity(logging.ERROR)  # Orbax explains itself at length
    from castream_jax.data.decode import UnreadableImageError
    from castream_jax.explanation import explain_many
    from castream_jax.explanation.explain import BATCH_SIZE, image_spec
    from castream_jax.explanation.named_model import open_named_model
    from castream_jax.protocol import get_protocol
    from castream_jax.runtime.compilation_cache import use_compilation_cache
    from castream_jax.runtime.cpu import prepare_cpu
    from castream_jax.runtime.progress import Progress

    prepare_cpu()
    use_compilation_cache()
    progress = Progress("explain", total=len(files), unit="images")
    model, protocol_name = open_named_model(arguments.model, arguments.weights, arguments.num_classes)
    target = "predicted" if arguments.label is None else "label"
    protocol = dataclasses.replace(get_protocol(arguments.protocol or protocol_name), target_class=target)
    spec = image_spec(model)
    model.images = dataclasses.replace(
        spec,
        size=spec.size if arguments.image_size is None else arguments.image_size,
        resize=arguments.resize or spec.resize,
        class_names=_read_names(arguments.class_names, model.backbone.num_classes) or spec.class_names,
    )
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
    results = []
    folders: set[str] = set()
    for done, explanation in enumerate(explanations, 1):
        saved = explanation.save(out / _folder(explanation.name, folders))
        results.append((explanation.as_dict() | {"files": saved}, _rows(explanation)))
        progress.pace(done)
    if arguments.json:
        document = {
            "model": arguments.model,
            "backbone": model.backbone.name,
            "protocol": {"name": protocol.name, "hash": protocol.hash},
            "out": str(out),
            "images": [result for result, _ in results],
            "unreadable": [{"image": error.name, "error": str(error)} for error in failed],
        }
        print(json.dumps(document, indent=2, ensure_ascii=False))
    elif results:
        _print_table([row for _, rows in results for row in rows])
        print(out)
    if failed:
        count = "" if len(failed) == 1 else f"{len(failed)} of {len(files)} images cannot be read: "
        raise ValueError(count + "; ".join(map(str, failed)))


def list_images(arguments: Sequence[str], lines: Any) -> list[str]:
    """The files that arguments stand for, each once.

    Args:
        arguments: files, folders, patterns, or "-" for the paths in `lines`, one on each.
        lines: standard input.

    Raises:
        ValueError: if a folder holds no image, a pattern fits nothing, or the list is empty.
    """
    files: list[str] = []
    for argument in arguments:
        if argument == "-":
            found = [line.rstrip("\r\n") for line in lines if line.strip()]
            missing = "The list of images on stdin is empty: give one path per line."
        elif os.path.isdir(argument):
            found = sorted(_images_in(argument))
            missing = f"The folder {argument} holds no images."
        elif os.path.exists(argument) or not glob.has_magic(argument):
            found, missing = [argument], ""  # one that is absent is told of when it is its turn, like a broken one
        else:
            found = sorted(path for path in glob.glob(argument, recursive=True) if os.path.isfile(path))
            missing = f"No file fits the pattern {argument}."
        if not found:
            raise ValueError(missing)
        files += found
    return list(dict.fromkeys(files))


def _images_in(folder: str) -> Iterator[str]:
    from castream_jax.data.image_folder import IMAGE_SUFFIXES

    for inside, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES):
                yield os.path.join(inside, name)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _read_names(path: str | None, num_classes: int) -> tuple[str, ...]:
    if path is None:
        return ()
    if not Path(path).is_file():
        raise ValueError(f"There is no file {path} with the names of the classes.")
    names = tuple(line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip())
    if len(names) != num_classes:
        raise ValueError(f"{path} has {len(names)} names, and the model {num_classes} classes: one name per line.")
    return names


def _folder(name: str, taken: set[str]) -> str:
    """The image's name without its suffix, numbered if another image has it."""
    stem = Path(name).stem or "image"
    folder, number = stem, 1
    while folder.lower() in taken:
        number += 1
        folder = f"{stem}-{number}"
    taken.add(folder.lower())
    return folder


def _rows(explanation: "Explanation") -> list[tuple[str, ...]]:
    """Rows of the table: image, head, its predictions, the class explained where that is not the first of them."""
    from castream_jax.reporting.tables import head_title

    rows = []
    for head in explanation.probabilities:
        predictions = explanation.predictions(head, _SHOWN)
        explained = explanation.explained(head)
        texts = [f"{p.title} {100 * p.probability:.1f} %" for p in predictions]
        other = "" if explained == predictions[0] else f"{explained.title} {100 * explained.probability:.1f} %"
        rows.append((Path(explanation.name).name, head_title(head), texts[0], ", ".join(texts[1:]), other))
    return rows


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD)
    titles = ["Image", "Head", "Prediction", "Then", "Explained"]
    if not any(row[-1] for row in rows):
        titles.pop()  # each head explains its own prediction
    for title in titles:
        table.add_column(title, overflow="fold")
    last = ""
    for row in rows:
        cells = ["" if row[0] == last else row[0], *row[1:]]
        last = row[0]
        table.add_row(*(Text(cell) for cell in cells[: len(titles)]))
    console = Console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)
    console.print(table)
