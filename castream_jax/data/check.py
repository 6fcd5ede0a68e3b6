"""`castream data check`: counts a dataset, decodes every image of it, and chooses a sample to look at."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
import itertools
from typing import Any, NamedTuple

from jaxtyping import Float, UInt8
import numpy as np

from castream_jax.data.decode import EncodedImage, Traits, UnreadableImageError
from castream_jax.data.image_paths import Skipped, describe_skipped
from castream_jax.data.renumbered import numbering
from castream_jax.data.source import Source, open_record
from castream_jax.data.transforms import image_size, scale_box


class Check(NamedTuple):
    """What a split holds.

    Attributes:
        images: number of records.
        per_class: images of each class, by its position (-1: images of multi-label data that show none).
        unreadable: for each image that cannot be decoded, the sentence that names it.
        smallest, largest: height and width, in pixels, of the images of the smallest and the largest area.
        boxes: number of boxes; None if the source has none.
        beyond: names of the images with a box that reaches beyond the image.
        tagged: names of the images with an EXIF orientation.
        grey, alpha: number of images that are greyscale, and that have an alpha channel, which is dropped.
        skipped: what the source passed over beside its images.
    """

    images: int
    per_class: Counter[int]
    unreadable: list[str]
    smallest: tuple[int, int] | None
    largest: tuple[int, int] | None
    boxes: int | None
    beyond: list[str]
    tagged: list[str]
    grey: int
    alpha: int
    skipped: Skipped


class Example(NamedTuple):
    """An image of the sample, the names of its classes, and its boxes x0, y0, x1, y1 in pixels."""

    pixels: UInt8[np.ndarray, "h w 3"]
    classes: str
    boxes: Float[np.ndarray, "n 4"]


def check_source(source: Source, report: Callable[[int], None] = lambda done: None, num_threads: int = 4) -> Check:
    """Decodes every image.

    Args:
        source: the data.
        report: called with the number of images checked so far, after each.
        num_threads: threads that decode.
    """
    per_class: Counter[int] = Counter()
    unreadable: list[str] = []
    sizes: set[tuple[int, int]] = set()
    boxes: int | None = None
    beyond: list[str] = []
    tagged: list[str] = []
    grey = alpha = 0
    with ThreadPoolExecutor(max(1, num_threads)) as threads:
        for done, (labels, size, box, traits, error) in enumerate(_decode_all(source, threads), 1):
            if traits.tagged:
                tagged.append(source.name(done - 1))
            grey, alpha = grey + traits.grey, alpha + traits.alpha
            if error is not None:
                unreadable.append(error)
            per_class.update(labels)
            if size is not None:
                sizes.add(size)
            if box is not None:
                boxes = (boxes or 0) + len(box)
            if box is not None and size is not None and _reaches_beyond(box, *size):
                beyond.append(source.name(done - 1))
            report(done)
    by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    smallest, largest = (by_area[0], by_area[-1]) if by_area else (None, None)
    skipped = getattr(source, "skipped", {})
    return Check(len(source), per_class, unreadable, smallest, largest, boxes, beyond, tagged, grey, alpha, skipped)


# Classes, height and width, boxes, traits, and what is wrong with it.
_Result = tuple[list[int], tuple[int, int] | None, Float[np.ndarray, "n 4"] | None, Traits, str | None]


def _decode_all(source: Source, threads: ThreadPoolExecutor) -> Iterator[_Result]:
    """Results in order; a bounded number of images is under way at any time, however many there are."""
    indices = iter(range(len(source)))
    while batch := list(itertools.islice(indices, 512)):
        yield from threads.map(lambda index: _decode(source, index), batch)


def _decode(source: Source, index: int) -> _Result:
    labels: list[int] = []
    boxes, traits = None, Traits(tagged=False, grey=False, alpha=False)
    try:
        record: Any = open_record(source, index)
        labels = _labels(record)
        if "box" in record:
            box = np.reshape(record["box"], (-1, 4))
            boxes = box[np.all(box[:, 2:] > box[:, :2], axis=1)]
        pixels, size = record["pixels"], image_size(record)
        if isinstance(pixels, EncodedImage):
            traits, pixels = pixels.traits, pixels.pixels()
    except UnreadableImageError as error:
        return labels, None, boxes, traits, error.on_command_line("replace or remove the file")
    if boxes is not None:  # of prepared data they are in pixels of the original
        boxes = scale_box(boxes, pixels.shape[1] / size[1], pixels.shape[0] / size[0])
    return labels, pixels.shape[:2], boxes, traits, None


def _reaches_beyond(boxes: Float[np.ndarray, "n 4"], height: int, width: int) -> bool:
    """Whether one of `boxes` is not inside the image; annotations that count from 1 or from 0 differ by a pixel."""
    return bool((boxes < -1).any() or (boxes > [width + 1, height + 1, width + 1, height + 1]).any())


def _labels(record: Any) -> list[int]:
    """The classes of an image; -1 for one of multi-label data that shows none."""
    return np.flatnonzero(record["target"]).tolist() or [-1] if "target" in record else [int(record["label"])]


def describe(check: Check, class_names: tuple[str, ...]) -> Iterator[str]:
    """The result as lines of text."""
    yield f"{check.images:,} images of {len(class_names)} classes"
    if note := numbering(class_names):
        yield note
    counts = [check.per_class[label] for label in range(len(class_names))]
    if counts:
        absent = [name for name, count in zip(class_names, counts, strict=True) if not count]
        shown = [count for count in counts if count]
        if shown:
            yield f"images per class: {min(shown)} to {max(shown)}"
        if absent:
            yield f"{len(absent)} classes have no image: {_first(absent)}"
    if check.per_class[-1]:
        yield f"images without any class: {check.per_class[-1]}"
    if check.smallest is not None and check.largest is not None:
        small, large = (f"{width} × {height}" for height, width in (check.smallest, check.largest))
        yield f"images: {small} to {large} pixels (width × height)"
    yield "boxes: none" if check.boxes is None else f"boxes: {check.boxes:,}"
    if check.beyond:
        yield f"images with a box that reaches beyond the image: {len(check.beyond):,}: {_first(check.beyond)}"
        yield "  boxes are cut at the image's edge, and one that lies outside counts as none: are they that image's?"
    if check.grey:
        yield f"greyscale images: {check.grey:,}"
    if check.alpha:
        yield f"images with an alpha channel, which is dropped: {check.alpha:,}"
    if check.tagged:
        yield f"images with an EXIF orientation: {len(check.tagged):,}: {_first(check.tagged)}"
        yield "  they are read as they are stored; --config.data.exif_orientation=True turns them"
    if check.skipped:
        yield describe_skipped(check.skipped)
    yield f"unreadable images: {len(check.unreadable)}"
    yield from check.unreadable


def _first(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def sample(source: Source, count: int = 24) -> Iterator[Example]:
    """`count` evenly spaced records; unreadable ones are left out."""
    chosen = np.unique(np.arange(min(count, len(source))) * len(source) // max(1, min(count, len(source))))
    for index in chosen.tolist():
        try:
            record = source[index]
        except UnreadableImageError:
            continue
        classes = ", ".join(source.class_names[label] for label in _labels(record) if label >= 0) or "none"
        yield Example(record["pixels"], classes, np.reshape(record.get("box", ()), (-1, 4)))
