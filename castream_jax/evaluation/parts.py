"""The files of an evaluation: parts of a fixed number of images, each written at once and never touched again.

A part is computed alone, by whichever process and after whichever interruption, so the set of files depends on neither:

- in `rows/` a row per image x head x method, of the images that are explained;
- in `predictions/` a row per image x head, of all images;
- in `gallery/` pixels and maps of the images that the report shows, where the part has any.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jaxtyping import Int
import numpy as np
import pyarrow as pa

from castream_jax.data import Source
from castream_jax.experiment.results import part_name, read_arrays, write_table
from castream_jax.experiment.workdir import Workdir
from castream_jax.runtime.atomic_files import replacing
from castream_jax.runtime.bucket_folder import remove

# Leaves are NumPy arrays whose leading axis runs over images.
Tree = Any


class EvaluationPart(NamedTuple):
    """Images by their `positions` in the source, `explained` or only predicted, and those `shown` in the gallery."""

    number: int
    positions: Int[np.ndarray, " _images"]
    explained: bool
    shown: Int[np.ndarray, " _shown"]

    def table(self, folder: Path) -> Path:
        """The part's file in `rows` or `predictions` of a workdir."""
        return folder / f"{part_name(self.number)}.parquet"

    def gallery(self, workdir: Workdir) -> Path:
        """The part's file with the images that it shows."""
        return workdir.gallery_parts / f"{part_name(self.number)}.npz"

    def is_whole(self, workdir: Workdir) -> bool:
        """Whether all that the part consists of has been written."""
        folders = (workdir.predictions, workdir.rows) if self.explained else (workdir.predictions,)
        return all(self.table(folder).exists() for folder in folders) and self._shows_all(workdir)

    def _shows_all(self, workdir: Workdir) -> bool:
        if not len(self.shown):
            return True
        if not self.gallery(workdir).exists():
            return False
        return bool(np.isin(self.shown, read_arrays(self.gallery(workdir), ["asked"])["asked"]).all())


def list_parts(length: int, part_size: int, max_images: int, gallery: int) -> list[EvaluationPart]:
    """All parts of an evaluation: first those of the images to explain, then those of the images only to predict.

    Args:
        length: images in the source.
        part_size: images per part.
        max_images: images to explain, evenly spaced; 0 for all.
        gallery: of these, how many to show.
    """
    chosen = evenly_spaced(length, max_images)
    shown = chosen[evenly_spaced(len(chosen), gallery)] if gallery else chosen[:0]
    others = np.setdiff1d(np.arange(length), chosen)
    pieces = [
        (piece, explained)
        for positions, explained in ((chosen, True), (others, False))
        for piece in np.split(positions, range(part_size, len(positions), part_size))
        if len(piece)
    ]
    return [
        EvaluationPart(number, piece, explained, np.intersect1d(piece, shown) if explained else shown[:0])
        for number, (piece, explained) in enumerate(pieces)
    ]


def evenly_spaced(length: int, count: int) -> Int[np.ndarray, " indices"]:
    """At most `count` of `length` indices, evenly spaced, so that no class of a sorted data set is left out; 0: all."""
    if not count or count >= length:
        return np.arange(length)
    return np.arange(count) * length // count


def regroup(blocks: Iterable[Tree], sizes: Sequence[int]) -> Iterator[Tree]:
    """Trees of exactly `sizes` images, from trees of any number of images in the same order."""
    blocks = iter(blocks)
    held: list[Tree] = []
    count = 0
    for size in sizes:
        while count < size:
            held.append(next(blocks))
            count += len(jax.tree.leaves(held[-1])[0])
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *held)
        yield take(joined, slice(size))
        held, count = [take(joined, slice(size, None))], count - size


def take(results: Tree, images: slice) -> Tree:
    """The results of some of the images."""
    return jax.tree.map(lambda leaf: leaf[images], results)


def write_part(
    workdir: Workdir, part: EvaluationPart, results: Tree, source: Source, protocol_hash: str, *, curves: bool
) -> None:
    """Writes the files of a part.

    Args:
        workdir: of the evaluation.
        part: the images.
        results: of these images, `{"index", "label", "readable": [n], "top": {head: [n, top]},
            "scores": {(head, method): …}, "shown": [n]}`: an image that is not readable gets no row; scores are as
            `castream.score` returns, empty for a part that is not explained; shown is None, or what the gallery shows
            of an image, as a dictionary of its `position`, `index`, `pixels`, `map/<head>/<method>`, and of raw
            attention `range/<head>/<method>`, see `attention_ranges`.
        source: has the images' names.
        protocol_hash: stamped on every row.
        curves: whether to keep the insertion and deletion curve of each row.
    """
    readable = results["readable"]
    names = [source.name(int(position)) for position in part.positions[readable]]
    results = jax.tree.map(lambda leaf: leaf[readable], results)
    if len(part.shown):
        images = [
            {**image, **{f"prediction/{head}": top[i, 0] for head, top in results["top"].items()}}
            for i, image in enumerate(results["shown"])
            if image is not None
        ]
        arrays: dict[str, Any] = {
            name: np.stack([image[name] for image in images]) for name in (images[0] if images else ())
        }
        with replacing(part.gallery(workdir)) as temporary:
            np.savez_compressed(temporary, asked=part.shown, **arrays)
    if part.explained:
        write_table(part.table(workdir.rows), _rows(results, names, protocol_hash, curves))
    write_table(part.table(workdir.predictions), _predictions(results, names))


def write_gallery(workdir: Workdir, parts: Sequence[EvaluationPart]) -> None:
    """Joins the gallery's parts to one file; none, if there is nothing to show."""
    shown: list[dict[str, np.ndarray]] = []
    for part in parts:
        if len(part.shown):
            arrays = read_arrays(part.gallery(workdir))
            del arrays["asked"]
            if not arrays:  # none of them was readable
                continue
            wanted = np.isin(arrays["position"], part.shown)
            shown.append({name: array[wanted] for name, array in arrays.items()})
    if not shown:
        remove(workdir.gallery)
        return
    names = [name for name in shown[0] if all(name in arrays for arrays in shown)]
    joined: dict[str, Any] = {name: np.concatenate([arrays[name] for arrays in shown]) for name in names}
    with replacing(workdir.gallery) as temporary:
        np.savez_compressed(temporary, **joined)


def _rows(results: Tree, names: list[str], protocol_hash: str, curves: bool) -> pa.Table:
    """Image by image, of each image all heads and methods."""
    keys = list(results["scores"])
    columns = _image_columns(results, names, [head for head, _ in keys])
    columns["method"] = pa.array(np.tile([method for _, method in keys], len(names)))
    best = [results["top"][head][:, 0] for head, _ in keys]
    columns["prediction"] = _interleave(best)
    columns["correct"] = _interleave([classes == results["label"] for classes in best])
    for field in next(iter(results["scores"].values())):
        if curves or not field.endswith("_curve"):
            columns[field] = _interleave([results["scores"][key][field] for key in keys])
    columns["protocol"] = pa.array([protocol_hash] * len(columns["index"]))
    return pa.table(columns)


def _predictions(results: Tree, names: list[str]) -> pa.Table:
    tops: Mapping[str, np.ndarray] = results["top"]
    columns = _image_columns(results, names, list(tops))
    columns["prediction"] = _interleave([top[:, 0] for top in tops.values()])
    hits = {head: top == results["label"][:, None] for head, top in tops.items()}
    columns["correct"] = _interleave([hit[:, 0] for hit in hits.values()])
    if next(iter(hits.values())).shape[1] > 1:
        columns["correct_top5"] = _interleave([hit.any(axis=1) for hit in hits.values()])
    return pa.table(columns)


def _image_columns(results: Tree, names: list[str], heads: list[str]) -> dict[str, pa.Array]:
    """What rows know of their image, and their head."""
    return {
        "index": pa.array(np.repeat(results["index"], len(heads))),
        "name": pa.array(np.repeat(np.asarray(names, object), len(heads))),
        "label": pa.array(np.repeat(results["label"], len(heads))),
        "head": pa.array(np.tile(heads, len(names))),
    }


def _interleave(columns: Sequence[np.ndarray]) -> pa.Array:
    """One column of rows that run over images, and within an image over the given columns."""
    stacked = np.stack(columns, axis=1)
    if stacked.ndim == 2:
        return pa.array(stacked.ravel())
    return pa.FixedSizeListArray.from_arrays(pa.array(stacked.ravel()), stacked.shape[2])
