"""`castream data check`: whether every image of a dataset can be read, and a sample of it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from castream_jax.data.source import Source

from castream_jax.commands.start import add_import_option, check_positive, user_path


def add(commands: Any) -> None:
    """Adds the parser to the sub-parsers of `castream`."""
    data = commands.add_parser("data", help="Check a dataset: see castream data check --help.", allow_abbrev=False)
    actions = data.add_subparsers(required=True, metavar="ACTION")
    text = "Count a dataset, decode every image, draw a sample to look at. Exit status 2 if an image is unreadable."
    command = actions.add_parser("check", help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=check)
    command.add_argument("source", metavar="SOURCE", help="image_folder, imagenet, cub, voc, indoor67, cifar10, …")
    command.add_argument("--path", type=user_path, default="", help="folder of the dataset")
    command.add_argument("--split", action="append", metavar="NAME", help="may be repeated; by default all there are")
    command.add_argument(
        "--sample", type=user_path, default="data-sample", metavar="PREFIX", help="the samples are PREFIX-SPLIT.png"
    )
    command.add_argument(
        "--difficult", default="ignore", choices=("ignore", "count"), help="objects of Pascal VOC marked difficult"
    )
    command.add_argument("--max-pixels", type=int, metavar="N", help="of an image; by default 178,956,970")
    command.add_argument("--threads", type=int, metavar="N", help="threads that decode; by default one for each core")
    add_import_option(command)


def check(arguments: argparse.Namespace) -> None:
    """Checks each split, prints what it holds and draws its sample.

    Raises:
        ValueError: if a split has other classes than the training split; or if an image is unreadable, when all splits
            are done.
    """
    check_positive(arguments, "max_pixels", "threads")
    from castream_jax.data.check import check_source, describe, sample
    from castream_jax.data.from_config import open_source, splits_of
    from castream_jax.data.renumbered import check_class_names, numbered_as
    from castream_jax.drawing.sample_sheet import write_sample
    from castream_jax.experiment.config import base_config
    from castream_jax.runtime.devices import available_cores
    from castream_jax.runtime.progress import Progress

    data = base_config().data
    data.update(source=arguments.source, path=arguments.path, difficult=arguments.difficult, image_size=64)
    data.max_pixels = arguments.max_pixels or 0
    sources = {}
    for split in arguments.split or splits_of(arguments.source, arguments.path):
        data.update(train_split=split)
        sources[split] = open_source(data, split if arguments.source == "digits" else "train", rows="images")
    training = sources.get("train") or _training_split(data, next(iter(sources.values())))
    check_class_names(training.class_names)
    for split, source in sources.items():
        sources[split] = numbered_as(source, training.class_names, f"The split {split!r} of {data.path}")
    unreadable = 0
    for split, source in sources.items():
        progress = Progress(f"check {split}".strip(), total=len(source), unit="images")
        result = check_source(source, progress.pace, arguments.threads or available_cores())
        path = Path(f"{arguments.sample}-{split}.png" if split else f"{arguments.sample}.png").resolve()
        write_sample(sample(source), path)
        print(f"{arguments.source} {split}".strip(), *describe(result, source.class_names), sep="\n  ")
        print(f"  sample: {path}", flush=True)
        unreadable += len(result.unreadable)
    if unreadable:
        raise ValueError(
            f"unreadable images: {unreadable}, named above; replace or remove them, or train and evaluate with "
            "--config.data.on_error=skip."
        )


def _training_split(data: Any, otherwise: "Source") -> "Source":
    """The training split, which numbers the classes of those that are checked, where it is there."""
    from castream_jax.data.from_config import open_source

    data.update(train_split="train")
    try:
        return open_source(data, "train")
    except (OSError, ValueError):
        return otherwise
