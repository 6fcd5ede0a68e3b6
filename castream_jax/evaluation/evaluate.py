"""`evaluate`: a trained experiment on its whole test split, GAP beside every stream, on identical masked images."""

from collections.abc import Callable, Iterable, Iterator
import datetime
import importlib.metadata
import json
import math
import os
from pathlib import Path
import time
from typing import Any

from flax import nnx
import jax
from jax.sharding import Mesh
from jaxtyping import Bool, Int
import numpy as np
import pyarrow.parquet as pq

from castream_jax.attribution.arguments import check_methods
from castream_jax.attribution.chunk_size import chunk_for
from castream_jax.data import describe_unreadable, evaluation_batches, open_source
from castream_jax.data.image_paths import describe_skipped
from castream_jax.data.loader import Batch
from castream_jax.data.subset import Subset
from castream_jax.evaluation.identity import claim_results, hash_of, identify, part_size_of
from castream_jax.evaluation.multi_label import class_scores_table, has_several_labels, summarise_class_scores
from castream_jax.evaluation.on_device import explain_batch, logits_batch, predict_batch
from castream_jax.evaluation.parts import Tree, list_parts, read_parts, regroup, take, write_gallery, write_part
from castream_jax.evaluation.sanity import BASELINES, sanity_check
from castream_jax.evaluation.statistics import CONFIDENCE, RESAMPLES, SEED
from castream_jax.evaluation.summary import PREDICTION_COLUMNS, ROW_COLUMNS, summarise_predictions, summarise_rows
from castream_jax.experiment.config import Config
from castream_jax.experiment.restore import restore_model
from castream_jax.model import Model
from castream_jax.protocol import get_protocol
from castream_jax.runtime.atomic_files import replacing, write_atomically
from castream_jax.runtime.mesh import (
    data_mesh,
    replicate,
    shard_batch,
    wait_for_all_processes,
)
from castream_jax.runtime.progress import Progress
from castream_jax.training.loop import check_classes
from castream_jax.version import __version__

Summary = dict[str, Any]


def evaluate(config: Config, workdir: str | os.PathLike[str], *, mesh: Mesh | None = None) -> Summary:
    """Accuracy and interpretability of every head, written to `evaluation/` of the workdir.

    `rows/` has one row per image x head x method, `predictions/` one per image x head, in parts (see `parts`);
    `curves.parquet` mean insertion and deletion curves, `gallery.npz` images and maps to look at, `sanity.json` the
    rank correlation of maps with those of randomised streams, `summary.json` the means with intervals. Where images
    have several labels, `class_scores.parquet` has every head's logits of every image, for mAP.

    Accuracy is taken over the whole test split, the rest over `config.evaluation.max_images` of it. Every device is
    given `batch_size` images at a time, in the same company on one device or on many, in one process or in several:
    otherwise sums would be rounded otherwise, and pixels of nearly equal saliency change places. The last of them are
    padded, and the padding is counted nowhere.

    Parts that are there already, whole and of this very run (see `run.identify`), are kept: an interrupted evaluation
    continues. Of several processes each computes parts of its own on its own devices; they need one file system, and
    meet only before the first part and after the last.

    Args:
        config: see `castream_jax.experiment.config.base_config`.
        workdir: folder of a trained experiment.
        mesh: devices of this process to use; by default all of them.

    Returns:
        The summary: metrics as fractions.

    Raises:
        FileNotFoundError: if there is no trained model or no data.
        ValueError: if workdir, weights, data, methods or protocol do not fit.
    """
    # --- input ---
    settings = config.evaluation
    mesh = data_mesh(jax.local_devices()) if mesh is None else mesh
    _check_settings(settings)
    protocol = get_protocol(settings.protocol)
    source = open_source(config.data, "test")
    check_classes(source.class_names, config.backbone.num_classes)

    # --- model ---
    model = restore_model(config, workdir)
    methods = [*settings.methods, *(BASELINES if settings.baselines else ())]
    methods = check_methods(model, list(dict.fromkeys(methods)), protocol)
    graphdef, state = nnx.split(model)
    state = jax.device_get(state)  # restored onto the devices of all processes, used on those of this one
    model = nnx.merge(graphdef, state)
    identity = identify(config, source, model, methods, protocol)
    sizes = {
        name: sum(p.size for p in jax.tree.leaves(nnx.state(head, nnx.Param))) for name, head in model.heads.items()
    }
    state = replicate(state, mesh)
    model = nnx.merge(graphdef, state)

    # --- resume ---
    folder = Path(workdir).resolve() / "evaluation"
    say = Progress("evaluate", total=len(source), unit="images").say
    if skipped := describe_skipped(getattr(source, "skipped", {})):
        say(skipped)
    if jax.process_index() == 0:
        part_size = math.ceil(settings.images_per_part / settings.batch_size) * settings.batch_size
        claim_results(folder, identity, part_size, say)
    wait_for_all_processes()
    parts = list_parts(len(source), part_size_of(folder), settings.max_images, settings.gallery)
    left = sum(len(part.positions) for part in parts if not part.is_whole(folder))
    if left < len(source):
        there = f"{len(source) - left:,} of {len(source):,} images"
        say(f"continuing after {there}" if left else f"{there} were there already")

    # --- explain, then only predict; each process parts of its own ---
    def explain(pixels: jax.Array, label: jax.Array) -> tuple[Tree, Tree]:
        chunk = chunk_for(model, *pixels.shape[1:3], memory_bytes=settings.memory_mib * 2**20)
        top, maps, scores = explain_batch(model, pixels, label, methods=methods, protocol=protocol, chunk=chunk)
        return {"top": top, "scores": scores}, maps

    def predict(pixels: jax.Array, label: jax.Array) -> tuple[Tree, Tree]:
        return {"top": predict_batch(model, pixels), "scores": {}}, {}

    begin = time.perf_counter()
    own = parts[jax.process_index() :: jax.process_count()]
    for task, explained, function in (("interpretability", True, explain), ("accuracy", False, predict)):
        same = [part for part in own if part.explained == explained]
        todo = [part for part in same if not part.is_whole(folder)]
        if not todo:
            continue
        positions = np.concatenate([part.positions for part in todo])
        batches = iter(evaluation_batches(config.data, Subset(source, positions), settings.batch_size * mesh.size))
        total = sum(len(part.positions) for part in same)
        progress = Progress(task, total=total, unit="images", done=total - len(positions))
        shown = np.isin(positions, np.concatenate([part.shown for part in todo]))
        results = _results(batches, positions, shown, mesh, function, progress)
        for part, of_part in zip(todo, regroup(results, [len(part.positions) for part in todo]), strict=True):
            write_part(folder, part, of_part, source, protocol.hash, curves=settings.curves)
        if batches.unreadable:
            say(describe_unreadable(batches.unreadable))
        batches.close()
    wait_for_all_processes()
    seconds = time.perf_counter() - begin

    # --- summarise ---
    if jax.process_index() == 0:
        if lost := [part.number for part in parts if not part.is_whole(folder)]:
            raise ValueError(f"Part {lost[0]} is not in {folder}: all processes must share the folder of the workdir.")
        write_gallery(folder, parts)
        explained = [part for part in parts if part.explained]
        predictions = read_parts(folder, parts, "predictions", PREDICTION_COLUMNS)
        rows = read_parts(folder, explained, "rows", ROW_COLUMNS)
        if not len(rows):
            raise ValueError("None of the images to explain can be read: run `castream data check` on them.")
        means, differences, curves = summarise_rows(rows)
        heads = summarise_predictions(predictions)
        if has_several_labels(source):
            path = folder / "class_scores.parquet"
            if not path.exists():
                images = open_source(config.data, "test", rows="images")
                batches = iter(evaluation_batches(config.data, images, settings.batch_size * mesh.size))
                table = class_scores_table(_all_logits(batches, model, mesh), images)
                batches.close()
                with replacing(path) as temporary:
                    pq.write_table(table, temporary)
            for head, entry in summarise_class_scores(pq.read_table(path)).items():
                heads[head] = _joined(heads[head], entry)
        readable = len(predictions) // len(model.heads)
        order = [(head, method) for method in methods for head in model.heads]  # as they were given
        means, differences = (
            sorted(entries, key=lambda entry: order.index((entry["head"], entry["method"])))
            for entries in (means, differences)
        )
        sanity = sanity_check(config, source, model, protocol, folder, hash_of(identity))
        summary: Summary = {
            "name": config.name,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "run": hash_of(identity),
            "protocol": {"hash": protocol.hash, **protocol.as_dict()},
            "trunk_fingerprint": identity["trunk"],
            "trunk_dtype": identity["dtype"],
            "class_names": list(source.class_names),
            "accuracy_images": readable,
            "images": len(rows) // len(means),
            "unreadable_images": len(source) - readable,
            "heads": {head: heads[head] | {"parameters": sizes[head]} for head in model.heads},
            "metrics": means,
            "differences": differences,
            "sanity": sanity["rows"],
            "sanity_images": sanity["images"],
            "bootstrap": {"confidence": CONFIDENCE, "resamples": RESAMPLES, "seed": SEED},
            **_timing(folder / "summary.json", left, seconds),
            "device": f"{mesh.size * jax.process_count()} × {mesh.devices.flat[0].device_kind}",
            "versions": _versions(),
        }
        if curves is not None:
            with replacing(folder / "curves.parquet") as temporary:
                pq.write_table(curves, temporary)
        write_atomically(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    wait_for_all_processes()
    return json.loads((folder / "summary.json").read_text())


def _check_settings(settings: Config) -> None:
    for field, least in (
        ("batch_size", 1),
        ("images_per_part", 1),
        ("max_images", 0),
        ("gallery", 0),
        ("memory_mib", 0),
        ("sanity_images", 0),
    ):
        if settings[field] < least:
            raise ValueError(f"config.evaluation.{field} must be at least {least}, got {settings[field]}.")


def _results(
    batches: Iterable[Batch],
    positions: Int[np.ndarray, " images"],
    shown: Bool[np.ndarray, " images"],
    mesh: Mesh,
    function: Callable[[jax.Array, jax.Array], tuple[Tree, Tree]],
    progress: Progress,
) -> Iterator[Tree]:
    """What `write_part` wants to know of the images, batch by batch, without the padding.

    An image that could not be read is not `readable`, and not among the shown.

    Args:
        batches: of an `eval_loader`.
        positions: of the images in the source, in the order of the loader.
        shown: whether each of them is in the gallery.
        mesh: devices to split each batch over.
        function: from pixels and labels to (results, maps) on the devices.
        progress: told of every batch.
    """

    def start(batch: Batch) -> tuple[Tree, Tree]:
        given = shard_batch({name: batch[name] for name in ("pixels", "label")}, mesh)
        return function(given["pixels"], given["label"])

    at = 0
    for batch, (results, maps) in _one_behind(start, batches):
        count = int((batch["index"] >= 0).sum())
        here = slice(at, at + count)
        at += count
        images = np.full(count, None, object)
        wanted = shown[here] & batch["mask"][:count]
        if wanted.any():  # maps are large, and wanted for few images
            maps = jax.device_get(maps)
            for i in np.flatnonzero(wanted):
                images[i] = {"position": positions[here][i], **{k: batch[k][i] for k in batch if k != "mask"}}
                images[i] |= {f"map/{head}/{method}": saliency[i] for (head, method), saliency in maps.items()}
        given = {"index": batch["index"], "label": batch["label"], "readable": batch["mask"]}
        results = {**jax.device_get(results), **given}
        progress.pace(at)
        yield {**take(results, slice(count)), "shown": images}


def _all_logits(batches: Iterable[Batch], model: Model, mesh: Mesh) -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
    def start(batch: Batch) -> Tree:
        return logits_batch(model, shard_batch({"pixels": batch["pixels"]}, mesh)["pixels"])

    for batch, logits in _one_behind(start, batches):
        yield batch, jax.device_get(logits)


def _joined(entry: Summary, more: Summary) -> Summary:
    """The fields of both, nested ones, too."""
    nested = {key: _joined(entry[key], more[key]) for key in entry.keys() & more.keys() if isinstance(more[key], dict)}
    return entry | more | nested


def _one_behind(function: Callable[[Batch], Tree], batches: Iterable[Batch]) -> Iterator[tuple[Batch, Tree]]:
    """(batch, `function` of it), the next one started before this one is handed out: host and devices work at once."""
    pending: tuple[Batch, Tree] | None = None
    for batch in batches:
        started = batch, function(batch)
        if pending is not None:
            yield pending
        pending = started
    if pending is not None:
        yield pending


def _timing(path: Path, images: int, seconds: float) -> dict[str, float]:
    """Time of this command's `images`; if there was none left to do, what the summary that is there says."""
    fields = ("timed_images", "seconds", "images_per_second")
    if not images and path.exists():
        there = json.loads(path.read_text())
        return {field: there[field] for field in fields}
    return dict(zip(fields, (images, seconds, images / seconds), strict=True))


def _versions() -> dict[str, str]:
    packages = ("jax", "jaxlib", "flax", "numpy", "grain")
    return {"castream_jax": __version__} | {name: importlib.metadata.version(name) for name in packages}
