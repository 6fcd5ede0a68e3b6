"""`castream data prepare`: any source as shards of small images, made once, which load many times as fast.

A shard is written under another name, read back, and renamed; then come its columns. So what is there is whole, and a
preparation that was stopped anywhere continues with the first shard that is not.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
import contextlib
from pathlib import Path
from typing import Any, NamedTuple

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
import filelock
import numpy as np

from castream_jax.data.content import content_digest
from castream_jax.data.decode import UnreadableImageError
from castream_jax.data.prepared_files import (
    BEGUN,
    FORMAT,
    MANIFEST,
    PAIRS,
    Columns,
    as_text_column,
    file_hash,
    from_text_column,
    read_begun,
    read_columns,
    shard_file,
    stem_of,
    write_columns,
)
from castream_jax.data.prepared_images import JpegForm, LosslessForm, StoredImage, as_rows
from castream_jax.data.source import Source, open_record
from castream_jax.runtime.atomic_files import replacing, write_json
from castream_jax.runtime.local_path import local_path

_PER_RECORD = ("box", "target", "target_mask")  # where a source has them


class Split(NamedTuple):
    """What is to become of a split.

    Attributes:
        source: its images.
        form: what becomes of one.
        pairs: the same images with a record for each pair of an image and a class that it shows, if there are such.
    """

    source: Source
    form: JpegForm | LosslessForm
    pairs: Source | None = None


class Prepared(NamedTuple):
    """What a preparation found and did: number of images, of shards made anew, and names of the images left out."""

    images: int
    made: int
    left_out: list[str]


def prepare(
    splits: Mapping[str, Split],
    out: Path,
    *,
    origin: Mapping[str, Any],
    images_per_shard: int = 1024,
    skip_unreadable: bool = False,
    num_threads: int = 4,
    report: Callable[[int], None] = lambda done: None,
) -> Prepared:
    """Writes what is not there yet, or not what it was, then the manifest; `out` can be read when it returns.

    Args:
        splits: by name.
        out: the folder; a new one, or one that the same preparation was stopped in, or has finished.
        origin: where the source lies, for the manifest alone.
        images_per_shard: images of a source that share a file.
        skip_unreadable: leave unreadable images out, instead of stopping at the first.
        num_threads: that decode, resize and encode.
        report: called with the number of images that are done, those of an earlier run included.

    Raises:
        ValueError: `out` is an address, or holds something else, or another preparation; or another process prepares
            it now.
        UnreadableImageError: an image cannot be decoded; names it.
        OSError: a file cannot be written, as on a full disk.
    """
    out = local_path(out)
    with _only_one(out):
        digests = {name: content_digest(split.source, sizes=True) for name, split in splits.items()}
        _begin(splits, digests, out, images_per_shard, skip_unreadable)
        done = made = 0
        entries, left_out = {}, []
        with ThreadPoolExecutor(max(1, num_threads)) as threads:
            for name, split in splits.items():
                parts = []
                for number, start in enumerate(range(0, len(split.source), images_per_shard)):
                    positions = range(start, min(start + images_per_shard, len(split.source)))
                    path = out / shard_file(name, number)
                    columns = _sound_columns(path)
                    if columns is None:
                        columns = _write_shard(path, split, positions, threads, skip_unreadable)
                        made += 1
                    parts.append(columns)
                    done += len(positions)
                    report(done)
                entries[name] = _write_split(out, name, split, parts) | {"source_digest": digests[name]}
                left_out += entries[name]["left_out"]
        write_json(out / MANIFEST, {"format": FORMAT, "origin": dict(origin), "splits": entries})
    return Prepared(sum(entry["images"] for entry in entries.values()), made, left_out)


@contextlib.contextmanager
def _only_one(out: Path) -> Iterator[None]:
    if out.is_file():
        raise ValueError(f"'{out}' is a file: give --out a folder of its own")
    others = [path.name for path in out.iterdir()] if out.is_dir() else []
    if others and not (out / BEGUN).is_file() and set(others) != {".lock"}:
        raise ValueError(f"'{out}' holds something else, such as '{min(others)}': give --out a folder of its own")
    out.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(out / ".lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise ValueError(f"'{out}' is being prepared by another process: wait until it has ended") from None
    try:
        yield
    finally:
        lock.release()


def _begin(
    splits: Mapping[str, Split], digests: Mapping[str, str], out: Path, images_per_shard: int, skip_unreadable: bool
) -> None:
    """Notes what is prepared, or compares it with what was noted."""
    wanted: dict[str, Any] = {"--shard-images": images_per_shard, "--on-error": "skip" if skip_unreadable else "stop"}
    for name, split in splits.items():
        wanted[f"images of {name!r}"] = digests[name][:16]
        wanted[f"form of {name!r}"] = " ".join(
            [type(split.form).__name__, *(f"{key}={value}" for key, value in split.form._asdict().items())]
        )
    if (noted := read_begun(out)) is None:
        write_json(out / BEGUN, {"format": FORMAT, "settings": wanted})
        return
    there = noted["settings"]
    different = [
        f"{field} ({there.get(field, 'absent')} there, {wanted.get(field, 'absent')} here)"
        for field in sorted(there.keys() | wanted.keys())
        if there.get(field) != wanted.get(field)
    ]
    if different:
        raise ValueError(
            f"'{out}' holds another preparation; these differ: {', '.join(different)}. Give another --out, or the "
            "same options and images"
        )


def _sound_columns(path: Path) -> Columns | None:
    """The columns of a shard that is there and whole; else None."""
    try:
        columns = read_columns(path.with_suffix(".npz"))
        return columns if from_text_column(columns["sha256"]) == file_hash(path) else None
    except (ValueError, KeyError):
        return None


def _write_shard(
    path: Path, split: Split, positions: Sequence[int], threads: ThreadPoolExecutor, skip_unreadable: bool
) -> Columns:
    images: list[StoredImage] = []
    records: list[dict[str, Any]] = []
    unreadable: list[str] = []
    for position, result in zip(positions, threads.map(lambda p: _encode(split, p), positions), strict=True):
        if isinstance(result, UnreadableImageError):
            if not skip_unreadable:
                raise result
            unreadable.append(split.source.name(position))
            continue
        record, image = result
        images.append(image)
        records.append(record | {"position": position})
    with replacing(path) as temporary:
        writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")  # 1: each image can be read alone
        try:
            for image in images:
                writer.write(image.content)
            writer.close()
        except RuntimeError as error:  # as of a full disk
            raise OSError(f"{path} cannot be written ({error}): see to it, and run the same command again.") from error
        if images:
            _read_back(temporary, images)
        digest = file_hash(temporary)
    columns = {
        "label": np.array([record["label"] for record in records], np.int32),
        "position": np.array([record["position"] for record in records], np.int64),
        "names": as_text_column([split.source.name(record["position"]) for record in records]),
        "left_out": as_text_column(unreadable),
        "sha256": as_text_column(digest),
        **as_rows(images),
        **{key: np.stack([r[key] for r in records]) for key in _PER_RECORD if records and key in records[0]},
    }
    write_columns(path.with_suffix(".npz"), columns)
    return columns


def _encode(split: Split, position: int) -> tuple[dict[str, Any], StoredImage] | UnreadableImageError:
    try:
        record: Any = open_record(split.source, position)
        image = split.form.encode(record)
        return {key: value for key, value in record.items() if key != "pixels"}, image
    except UnreadableImageError as error:
        return error


def _read_back(path: Path, images: Sequence[StoredImage]) -> None:
    """Raises an OSError unless a shard gives back what was written to it."""
    reader = ArrayRecordReader(str(path))
    if reader.num_records() != len(images) or reader.read_all() != [image.content for image in images]:
        raise OSError(f"'{path.parent}' does not give back what is written there: is the disk full, or failing?")
    reader.close()


def _write_split(out: Path, name: str, split: Split, parts: Sequence[Columns]) -> dict[str, Any]:
    """Writes the columns of a split, and of its pairs; gives its entry in the manifest."""
    keys = [key for key in (*_PER_RECORD, "label", "position", "size", "stored") if any(key in part for part in parts)]
    columns = {key: np.concatenate([part[key] for part in parts if key in part]) for key in keys}
    names = [text for part in parts for text in from_text_column(part["names"])]
    left_out = [text for part in parts for text in from_text_column(part["left_out"])]
    if not names:
        raise ValueError(f"None of the images of the split {name!r} can be read: run `castream data check` on them")
    files = [shard_file(name, number) for number in range(len(parts))]
    images = [len(part["label"]) for part in parts]
    tables = {f"{stem_of(name)}.npz": columns | {"names": as_text_column(names)}}
    if split.pairs is not None:
        tables[f"{stem_of(name)}-{PAIRS}.npz"] = _pair_columns(split.pairs, split.source, columns["position"])
    for file, table in tables.items():
        write_columns(out / file, table)
    return {
        "images": len(names),
        "class_names": list(split.source.class_names),
        "lossless": isinstance(split.form, LosslessForm),
        **split.form._asdict(),
        "resized": int((columns["size"] != columns["stored"]).any(1).sum()),
        "left_out": left_out,
        "shards": [{"file": file, "images": count} for file, count in zip(files, images, strict=True) if count],
        "files": {
            file: {"bytes": (out / file).stat().st_size, "sha256": file_hash(out / file)} for file in [*tables, *files]
        },
    }


def _pair_columns(pairs: Source, images: Source, positions: np.ndarray) -> Columns:
    """The columns of pairs: those of their records, and `image`, the row of the image that each is of."""
    row_of = {images.name(int(position)): row for row, position in enumerate(positions)}
    kept: list[dict[str, Any]] = []
    for index in range(len(pairs)):
        # The name of a pair is that of its image and of its class.
        row = row_of.get(pairs.name(index).rpartition(":")[0])
        if row is not None:
            kept.append(open_record(pairs, index) | {"image": row, "name": pairs.name(index)})
    columns = {key: np.stack([record[key] for record in kept]) for key in ("label", "image", *_PER_RECORD)}
    return columns | {"names": as_text_column([record["name"] for record in kept])}
