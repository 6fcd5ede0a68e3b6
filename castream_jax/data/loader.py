"""Batches for training and for evaluation.

Both loaders are grain pipelines whose threads, or worker processes, each build whole batches.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import grain
import numpy as np

from castream_jax.data.batches import Batch, Batches
from castream_jax.data.reader import OnError, ReadRecord, Transform
from castream_jax.data.source import Source


def train_loader(
    source: Source,
    *,
    batch_size: int,
    num_epochs: int,
    seed: int,
    transforms: Sequence[Transform] = (),
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 4,
    num_workers: int = 0,
    prefetch: int = 8,
    on_error: OnError = "stop",
    numbered: bool = False,
) -> Batches:
    """Shuffled batches for `num_epochs` passes over the source; every pass has its own order.

    Batches cross from one pass into the next, so there are `num_epochs * len(source) // batch_size` of them,
    and only the last images of the last pass can be left out. Global batch `k` is the same set of images,
    flipped and cropped alike, for any number of processes; each process reads its share alone.

    Args:
        source: where records come from.
        batch_size: images per step over all processes.
        num_epochs: passes over the source.
        seed: of order and augmentation.
        transforms: applied to every record, in order.
        process_index: which share of each batch to read.
        process_count: number of shares.
        num_threads: threads that build batches, in each worker process if there are any; 0 builds them in the
            caller's thread.
        num_workers: processes that build batches; 0 for none.
        prefetch: batches held ready.
        on_error: "stop" at an unreadable image, or "skip" it: the next readable record of the source takes its place,
            and the iterator's `unreadable` names it.
        numbered: give each image's pass and its position in the source, too.

    Returns:
        An iterable of {"pixels": uint8 [B, H, W, 3], "label": int32 [B]} with B = batch_size / process_count, and
        "target" float32 [B, K] and "target_mask" bool [B, K] for multi-label data, "size" and "placed" int32 [B, 2] of
        records that have them (`IntoSquare`), and "epoch" int32 [B], from 0, and "index" int32 [B] if `numbered`.

    Raises:
        ValueError: `batch_size` is not a multiple of `process_count`, is more than there are images,
            or, on reading, images differ in size.
        UnreadableImageError: on reading, an image cannot be decoded; names it.
    """
    if not 0 <= process_index < process_count:
        raise ValueError(f"process index {process_index} is not one of 0 to {process_count - 1}")
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"batch size {batch_size} is not a positive multiple of the number of processes, {process_count}"
        )
    steps = num_epochs * len(source) // batch_size
    if not steps:
        raise ValueError(
            f"{len(source)} images × {num_epochs} epochs do not fill one batch of {batch_size}; "
            "choose a smaller batch size"
        )
    positions = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat(num_epochs)
    read = ReadRecord(source, transforms, on_error, replace=True)
    # Datasets are lazy: reading before taking this process's share costs nothing, and seeds each random transform
    # with the position in the *global* stream, which does not depend on the number of processes.
    dataset = positions.random_map(read) if read.is_random else positions
    make: Any = partial(_training_batch, numbered) if read.is_random else partial(_read_batch, read, numbered)
    # Cut first, or the first processes could hold one batch more than the last ones and wait for them.
    dataset = dataset[process_index : steps * batch_size : process_count]
    dataset = dataset.batch(batch_size // process_count, drop_remainder=True, batch_fn=make)
    if numbered:
        share = range(process_index, batch_size, process_count)  # of a global batch
        dataset = dataset.map_with_index(partial(_with_epochs, share=share, batch_size=batch_size, images=len(source)))
    return Batches(dataset, source.name, num_threads, num_workers, prefetch)


def eval_loader(
    source: Source,
    *,
    batch_size: int,
    transforms: Sequence[Transform] = (),
    start: int = 0,
    limit: int | None = None,
    num_threads: int = 4,
    num_workers: int = 0,
    prefetch: int = 8,
    on_error: OnError = "stop",
) -> Batches:
    """Every image once, in order, in batches of one size; the last one is padded.

    Args:
        source: where records come from.
        batch_size: rows per batch.
        transforms: applied to every record, in order; a random one is seeded with 0.
        start: index of the first record to read.
        limit: how many records to read at most; None for all that remain.
        num_threads: threads that build batches, in each worker process if there are any; 0 builds them in the
            caller's thread.
        num_workers: processes that build batches; 0 for none.
        prefetch: batches held ready.
        on_error: "stop" at an unreadable image, or "skip" it: its row is black with mask False, like padding, but
            keeps its index, and the iterator's `unreadable` names it.

    Returns:
        An iterable of {"pixels": uint8 [B, H, W, 3], "label": int32 [B], "index": int32 [B],
        "mask": bool [B]}, and, where records have them, "box" float32 [B, 4] or [B, N, 4], "target" float32 [B, K] and
        "target_mask" bool [B, K]. Rows of padding are zero, with index -1 and mask False.

    Raises:
        ValueError: an argument is out of range, or, on reading, images differ in size.
        UnreadableImageError: on reading, an image cannot be decoded; names it.
    """
    if batch_size < 1:
        raise ValueError(f"batch size {batch_size} is not positive")
    if not 0 <= start <= len(source):
        raise ValueError(f"start {start} is not within the {len(source)} records of the source")
    if limit is not None and limit < 0:
        raise ValueError(f"limit {limit} is negative; use None to read all records")
    stop = len(source) if limit is None else min(start + limit, len(source))
    dataset = grain.MapDataset.range(len(source)).seed(0)
    dataset = dataset.random_map(ReadRecord(source, transforms, on_error, replace=False))[start:stop]
    dataset = dataset.batch(batch_size, batch_fn=partial(_evaluation_batch, batch_size=batch_size))
    return Batches(dataset, source.name, num_threads, num_workers, prefetch)


def _read_batch(read: ReadRecord, numbered: bool, positions: Sequence[int]) -> Batch:
    return _training_batch(numbered, *read.read_together(positions))


def _training_batch(numbered: bool, records: Sequence[dict[str, Any]], pixels: np.ndarray | None = None) -> Batch:
    pixels = _stack_pixels(records) if pixels is None else pixels
    batch = {"pixels": pixels, "label": np.array([r["label"] for r in records], np.int32)}
    for key in ("target", "target_mask", "size", "placed"):
        if key in records[0]:
            batch[key] = np.stack([r[key] for r in records])
    if numbered:
        batch["index"] = np.array([r["index"] for r in records], np.int32)
    return batch | {"unreadable": _unreadable(records)}


def _with_epochs(number: int, batch: Batch, share: range, batch_size: int, images: int) -> Batch:
    """Batch `number` with the pass over the source that each of its images belongs to."""
    return batch | {"epoch": ((number * batch_size + np.array(share)) // images).astype(np.int32)}


def _evaluation_batch(records: Sequence[dict[str, Any]], batch_size: int) -> Batch:
    readable = [r for r in records if not r["unreadable"]]
    mask = np.zeros(batch_size, bool)
    mask[: len(records)] = [not r["unreadable"] for r in records]

    def place(rows: np.ndarray) -> np.ndarray:
        """The readable rows where they belong, zeros elsewhere."""
        if len(rows) == batch_size:
            return rows
        placed = np.zeros((batch_size, *rows.shape[1:]), rows.dtype)
        placed[mask] = rows
        return placed

    index = np.full(batch_size, -1, np.int32)
    index[: len(records)] = [r["index"] for r in records]
    batch = {
        "pixels": place(_stack_pixels(readable) if readable else _stack_pixels(records)[:0]),
        "label": place(np.array([r["label"] for r in readable], np.int32)),
        "index": index,
        "mask": mask,
    }
    for key in ("box", "target", "target_mask"):
        if readable and key in readable[0]:
            batch[key] = place(np.stack([r[key] for r in readable]))
    return batch | {"unreadable": _unreadable(records)}


def _unreadable(records: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.array([position for r in records for position in r["unreadable"]], np.int32)


def _stack_pixels(records: Sequence[dict[str, Any]]) -> np.ndarray:
    shapes = {r["pixels"].shape for r in records}
    if len(shapes) > 1:
        sizes = " and ".join(f"{height} × {width}" for height, width, _ in sorted(shapes)[:2])
        raise ValueError(
            f"images of {sizes} pixels cannot share a batch; bring them to one size with Squash or CenterCrop, "
            "config.data.resize='squash' or 'center_crop'"
        )
    return np.stack([r["pixels"] for r in records])
