"""Batches for training and for evaluation.

Both loaders are grain pipelines whose threads each build whole batches. The state of their iterators
(`get_state`, `set_state`) is the number of batches handed out: it does not depend on the number of threads.
"""

from collections.abc import Sequence
from functools import partial

import grain
import numpy as np

from castream_jax.data.source import Record, Source

Transform = grain.transforms.Map | grain.transforms.RandomMap
Batch = dict[str, np.ndarray]


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
    prefetch: int = 8,
) -> grain.IterDataset[Batch]:
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
        num_threads: threads that build batches; 0 builds them in the caller's thread.
        prefetch: batches held ready.

    Returns:
        An iterable of {"pixels": uint8 [B, H, W, 3], "label": int32 [B]} with B = batch_size / process_count.

    Raises:
        ValueError: `batch_size` is not a multiple of `process_count`, is more than there are images,
            or, on reading, images differ in size.
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
    dataset = grain.MapDataset.source(source).seed(seed).shuffle().repeat(num_epochs)
    # Datasets are lazy: transforming before taking this process's share costs nothing, and seeds each random
    # transform with the position in the *global* stream, which does not depend on the number of processes.
    dataset = _apply(dataset, transforms)
    # Cut first, or the first processes could hold one batch more than the last ones and wait for them.
    dataset = dataset[: steps * batch_size][process_index::process_count]
    dataset = dataset.batch(batch_size // process_count, drop_remainder=True, batch_fn=_training_batch)
    return dataset.to_iter_dataset(_read_options(num_threads, prefetch))


def eval_loader(
    source: Source,
    *,
    batch_size: int,
    transforms: Sequence[Transform] = (),
    start: int = 0,
    limit: int | None = None,
    num_threads: int = 4,
    prefetch: int = 8,
) -> grain.IterDataset[Batch]:
    """Every image once, in order, in batches of one size; the last one is padded.

    Args:
        source: where records come from.
        batch_size: rows per batch.
        transforms: applied to every record, in order; a random one is seeded with 0.
        start: index of the first record to read.
        limit: how many records to read at most; None for all that remain.
        num_threads: threads that build batches; 0 builds them in the caller's thread.
        prefetch: batches held ready.

    Returns:
        An iterable of {"pixels": uint8 [B, H, W, 3], "label": int32 [B], "index": int32 [B],
        "mask": bool [B]}, and "box": float32 [B, 4] where records have one. Rows of padding are zero, with
        index -1 and mask False.

    Raises:
        ValueError: an argument is out of range, or, on reading, images differ in size.
    """
    if batch_size < 1:
        raise ValueError(f"batch size {batch_size} is not positive")
    if not 0 <= start <= len(source):
        raise ValueError(f"start {start} is not within the {len(source)} records of the source")
    if limit is not None and limit < 0:
        raise ValueError(f"limit {limit} is negative; use None to read all records")
    stop = len(source) if limit is None else min(start + limit, len(source))
    dataset = _apply(grain.MapDataset.source(source).seed(0), transforms)[start:stop]
    dataset = dataset.batch(batch_size, batch_fn=partial(_evaluation_batch, batch_size=batch_size))
    return dataset.to_iter_dataset(_read_options(num_threads, prefetch))


def _apply(dataset: grain.MapDataset[Record], transforms: Sequence[Transform]) -> grain.MapDataset[Record]:
    for transform in transforms:
        if isinstance(transform, grain.transforms.RandomMap):
            dataset = dataset.random_map(transform)
        else:
            dataset = dataset.map(transform)
    return dataset


def _read_options(num_threads: int, prefetch: int) -> grain.ReadOptions:
    # A buffer smaller than the number of threads leaves some idle.
    return grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=max(prefetch, num_threads))


def _training_batch(records: Sequence[Record]) -> Batch:
    return {"pixels": _stack_pixels(records), "label": np.array([r["label"] for r in records], np.int32)}


def _evaluation_batch(records: Sequence[Record], batch_size: int) -> Batch:
    batch = {
        **_training_batch(records),
        "index": np.array([r["index"] for r in records], np.int32),
        "mask": np.ones(len(records), bool),
    }
    if all("box" in r for r in records):
        batch["box"] = np.stack([r["box"] for r in records if "box" in r]).astype(np.float32)
    padding = batch_size - len(records)
    if padding:
        batch = {key: np.pad(rows, [(0, padding)] + [(0, 0)] * (rows.ndim - 1)) for key, rows in batch.items()}
        batch["index"][-padding:] = -1
    return batch


def _stack_pixels(records: Sequence[Record]) -> np.ndarray:
    shapes = {r["pixels"].shape for r in records}
    if len(shapes) > 1:
        sizes = " and ".join(f"{height} × {width}" for height, width, _ in sorted(shapes)[:2])
        raise ValueError(
            f"images of {sizes} pixels cannot share a batch; bring them to one size with Squash or CenterCrop"
        )
    return np.stack([r["pixels"] for r in records])
