"""`castream data`: whether every image of a dataset can be read; and the dataset as small images that load fast."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from castream_jax.data.prepare import Split
    from castream_jax.data.source import Source

from castream_jax.commands.start import add_import_option, check_on_disk, check_positive, user_path, with_options


def add(commands: Any) -> None:
    """Adds the parser to the sub-parsers of `castream`."""
    data = commands.add_parser("data", help="Check or prepare a dataset: see castream data --help.", allow_abbrev=False)
    actions = data.add_subparsers(required=True, metavar="ACTION")
    _add_check(actions)
    _add_prepare(actions)


def _add_check(actions: Any) -> None:
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


def _add_prepare(actions: Any) -> None:
    text = (
        "Make small images of a dataset once, in shards that load many times as fast: config.data.source='prepared'. "
        "A preparation that was stopped continues when the command is run again; on one that is finished, it makes "
        "damaged files anew."
    )
    command = actions.add_parser(
        "prepare", help="Small images of a dataset, for fast loading.", description=text, allow_abbrev=False
    )
    command.set_defaults(run=prepare, takes_overrides=True)
    command.add_argument("source", metavar="SOURCE", help="image_folder, imagenet, cub, voc, indoor67, cifar10, …")
    command.add_argument("--path", type=user_path, default="", help="folder of the dataset")
    command.add_argument("--out", type=user_path, required=True, metavar="DIR", help="folder for the prepared data")
    command.add_argument("--split", action="append", metavar="NAME", help="may be repeated; by default all there are")
    command.add_argument("--side", type=int, default=256, help="of the images, which become squares (default: 256)")
    command.add_argument("--quality", type=int, default=90, help="of the JPEGs, 1 to 100 (default: 90)")
    command.add_argument(
        "--lossless",
        action="append",
        default=[],
        metavar="NAME",
        help="a split of which the exact pixels are kept that --config.data.resize and --config.data.image_size give "
        "(squash, 224), so that evaluations give the same numbers; may be repeated",
    )
    command.add_argument("--shard-images", type=int, default=1024, metavar="N", help="images a file (default: 1024)")
    command.add_argument("--workers", type=int, metavar="N", help="threads that work; by default one for each core")
    command.add_argument(
        "--on-error", default="stop", choices=("stop", "skip"), help="skip: leave out and name images that are damaged"
    )
    add_import_option(command)


def prepare(arguments: argparse.Namespace) -> None:
    """Prepares each split and says where it lies.

    Raises:
        ValueError: an option is out of range, or the folder holds something else.
        UnreadableImageError: an image cannot be decoded.
    """
    check_positive(arguments, "side", "shard_images", "workers")
    check_on_disk(arguments, "out")
    if not 1 <= arguments.quality <= 100:
        raise ValueError(f"--quality must be between 1 and 100, got {arguments.quality}.")
    if arguments.source == "prepared":
        raise ValueError("These data are prepared already: give the source that they were prepared from.")
    from castream_jax.data.prepare import prepare as write
    from castream_jax.experiment.config import base_config
    from castream_jax.runtime.devices import available_cores
    from castream_jax.runtime.progress import Progress

    data = with_options(base_config(), arguments).data
    data.update(source=arguments.source, path=arguments.path)
    splits = _splits_to_prepare(data, arguments)
    progress = Progress("prepare", total=sum(len(split.source) for split in splits.values()), unit="images")
    out = Path(arguments.out).resolve()
    result = write(
        splits,
        out,
        origin={"source": data.source, "path": str(Path(data.path).resolve()) if data.path else ""},
        images_per_shard=arguments.shard_images,
        skip_unreadable=arguments.on_error == "skip",
        num_threads=arguments.workers or available_cores(),
        report=progress.pace,
    )
    if result.left_out:
        print(f"images that cannot be read, left out: {len(result.left_out):,}", *result.left_out, sep="\n  ")
    state = f"{result.made:,} shards written" if result.made else "all of it was there, and is what it was"
    print(f"{result.images:,} images of {', '.join(map(repr, splits))}: {state}")
    print(f"{out}\n  read it with --config.data.source=prepared --config.data.path={out}")


def _splits_to_prepare(data: Any, arguments: argparse.Namespace) -> "dict[str, Split]":
    """What is to become of each split, by its name."""
    from castream_jax.data.from_config import RESIZES, open_source, splits_of
    from castream_jax.data.prepare import Split
    from castream_jax.data.prepared_images import JpegForm, LosslessForm
    from castream_jax.data.source import stored_labels

    if data.resize not in RESIZES:
        raise ValueError(f"unknown resize '{data.resize}'; choose one of {', '.join(RESIZES)}")
    names = arguments.split or splits_of(data.source, data.path)
    if strange := [name for name in arguments.lossless if name not in names]:
        raise ValueError(f"--lossless={strange[0]} is none of the splits, which are {', '.join(map(repr, names))}.")
    splits = {}
    for name in names:
        data.update(train_split=name)
        source = open_source(data, name if data.source == "digits" else "train", rows="images")
        lossless = LosslessForm(data.resize, data.image_size)
        form = lossless if name in arguments.lossless else JpegForm(arguments.side, arguments.quality)
        pairs = None
        labels = stored_labels(source)
        if data.source == "voc" and labels is not None and labels.max() >= 0:
            pairs = open_source(data, "train", rows="pairs")
        splits[name] = Split(source, form, pairs)
    return splits


def check(arguments: argparse.Namespace) -> None:
    """Checks each split, prints what it holds and draws its sample.

    Raises:
        ValueError: if `--sample` is an address, or a split has other classes than the training split; or if an image is
            unreadable, when all splits are done.
    """
    check_positive(arguments, "max_pixels", "threads")
    check_on_disk(arguments, "sample")
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
        named = split if arguments.source == "digits" else "train"
        sources[split] = open_source(data, named, rows="images", as_it_is=True)
    training = sources.get("train") or _training_split(data, next(iter(sources.values())))
    check_class_names(training.class_names)
    for split, source in sources.items():
        sources[split] = numbered_as(source, training.class_names, f"The split {split!r} of {data.path}")
    damaged = list(_damaged(arguments))
    unreadable = 0
    for split, source in sources.items():
        progress = Progress(f"check {split}".strip(), total=len(source), unit="images")
        result = check_source(source, progress.pace, arguments.threads or available_cores())
        path = Path(f"{arguments.sample}-{split}.png" if split else f"{arguments.sample}.png").resolve()
        write_sample(sample(source), path)
        print(f"{arguments.source} {split}".strip(), *describe(result, source.class_names), sep="\n  ")
        print(f"  sample: {path}", flush=True)
        unreadable += len(result.unreadable)
    if damaged:
        raise ValueError(
            f"{len(damaged)} files of '{arguments.path}' are not what was written, such as {damaged[0]}: run the "
            "command that prepared the data again, which makes them anew."
        )
    if unreadable:
        raise ValueError(
            f"unreadable images: {unreadable}, named above; replace or remove them, or train and evaluate with "
            "--config.data.on_error=skip."
        )


def _damaged(arguments: argparse.Namespace) -> Iterator[str]:
    """Of prepared data, the files that are not what was written."""
    from castream_jax.data.prepared_bucket import local_manifest, local_split
    from castream_jax.data.prepared_files import damaged_files, read_manifest

    if arguments.source == "prepared":
        manifest = read_manifest(local_manifest(arguments.path))
        for split in manifest["splits"]:
            local_split(arguments.path, split)
        yield from damaged_files(local_manifest(arguments.path), manifest)


def _training_split(data: Any, otherwise: "Source") -> "Source":
    """The training split, which numbers the classes of those that are checked, where it is there."""
    from castream_jax.data.from_config import open_source

    data.update(train_split="train")
    try:
        return open_source(data, "train", as_it_is=True)
    except (OSError, ValueError):
        return otherwise
