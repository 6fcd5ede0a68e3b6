"""`evaluate`: a trained experiment on its whole test split, GAP beside every stream, on identical masked images."""

from collections.abc import Iterator
import datetime
import importlib.metadata
import itertools
import json
import os
from pathlib import Path
import time
from typing import Any

from flax import nnx
import jax
from jax.sharding import Mesh
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from castream_jax.attribution.attribute import check_methods
from castream_jax.backbones import fingerprint
from castream_jax.config import Config
from castream_jax.data import (
    Source,
    describe_unreadable,
    eval_loader,
    open_source,
    reading_options,
    record_transforms,
)
from castream_jax.data.subset import Subset
from castream_jax.evaluation.explain import explain_batch, predict_batch
from castream_jax.metrics import METRICS
from castream_jax.model import Model
from castream_jax.parallel import check_batch_size, data_mesh, replicate, shard_batch, split_over_images
from castream_jax.progress import Progress
from castream_jax.protocol import get_protocol
from castream_jax.training.loop import check_classes
from castream_jax.training.restore import restore_model
from castream_jax.version import __version__
from castream_jax.workdir import replacing, write_atomically

Summary = dict[str, Any]


def evaluate(config: Config, workdir: str | os.PathLike[str], *, mesh: Mesh | None = None) -> Summary:
    """Accuracy and interpretability of every head, written to `evaluation/` of the workdir.

    `rows.parquet` has one row per image x head x method, `gallery.npz` images and maps to look at, `summary.json` the
    means. Accuracy is taken over the whole test split, the rest over `config.evaluation.max_images` of it. Batches are
    split over the devices; the last one is padded, and the padding is counted nowhere.

    Returns:
        The summary: metrics as fractions.

    Raises:
        FileNotFoundError: if there is no trained model or no data.
        ValueError: if workdir, weights, data, methods or protocol do not fit.
    """
    if jax.process_count() > 1:
        raise ValueError("castream evaluate runs as one process, on all devices of its host: start it once.")
    mesh = data_mesh() if mesh is None else mesh
    batch_size = config.evaluation.batch_size
    check_batch_size(batch_size, mesh)
    protocol = get_protocol(config.evaluation.protocol)
    source = open_source(config.data, "test")
    check_classes(source.class_names, config.backbone.num_classes)
    model = restore_model(config, workdir, mesh=mesh)
    methods = check_methods(model, config.evaluation.methods)
    graphdef, state = nnx.split(model)
    state = replicate(state, mesh)
    split = split_over_images(mesh) if mesh.size > 1 else None
    begin = time.perf_counter()

    # --- accuracy, over all images ---
    hits, counted = dict.fromkeys(model.heads, 0), 0
    for batch, predictions in _batches(
        config, source, mesh, "accuracy", lambda b: predict_batch(graphdef, state, b["pixels"])
    ):
        counted += int(batch["mask"].sum())
        for head, classes in predictions.items():
            hits[head] += int((classes == batch["label"])[batch["mask"]].sum())

    # --- interpretability ---
    chosen = evenly_spaced(len(source), config.evaluation.max_images)
    in_gallery = set(chosen[evenly_spaced(len(chosen), config.evaluation.gallery)].tolist())
    rows: list[dict[str, Any]] = []
    gallery: list[dict[str, Any]] = []
    explaining = _batches(
        config,
        Subset(source, chosen),
        mesh,
        "interpretability",
        lambda b: explain_batch(graphdef, state, b["pixels"], b["label"], methods, protocol, sharding=split),
    )
    for batch, (predictions, maps, scores) in explaining:
        for i in np.flatnonzero(batch["mask"]):
            image = {"index": int(batch["index"][i]), "label": int(batch["label"][i])}
            name = source.name(image["index"])
            for (head, method), values in scores.items():
                of_image = {key: value[i] for key, value in values.items()}
                prediction = int(predictions[head][i])
                rows.append(
                    {**image, "name": name, "head": head, "method": method, "prediction": prediction, **of_image}
                )
            if image["index"] in in_gallery:
                shown = {"pixels": batch["pixels"][i]} | ({"box": batch["box"][i]} if "box" in batch else {})
                shown |= {f"prediction/{head}": classes[i] for head, classes in predictions.items()}
                shown |= {f"map/{head}/{method}": saliency[i] for (head, method), saliency in maps.items()}
                gallery.append({**image, **shown})
    seconds = time.perf_counter() - begin
    if not rows or not gallery:
        raise ValueError("none of the images to explain, or to show, can be read: run `castream data check` on them.")
    counted_rows = len({row["index"] for row in rows})

    # --- write ---
    folder = Path(workdir).resolve() / "evaluation"
    folder.mkdir(exist_ok=True)
    _write_rows(folder / "rows.parquet", rows)
    _write_gallery(folder / "gallery.npz", gallery)
    summary: Summary = {
        "name": config.name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "protocol": {"hash": protocol.hash, **protocol.as_dict()},
        "trunk_fingerprint": fingerprint(model.backbone),
        "class_names": list(source.class_names),
        "accuracy_images": counted,
        "images": counted_rows,
        "unreadable_images": len(source) - counted,
        "heads": {
            head: {"accuracy": hits[head] / counted, "parameters": _count_parameters(model, head)} for head in hits
        },
        "metrics": _means(rows),
        "seconds": seconds,
        "images_per_second": counted_rows / seconds,
        "device": f"{mesh.size} × {mesh.devices.flat[0].device_kind}",
        "versions": _versions(),
    }
    write_atomically(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def evenly_spaced(length: int, count: int) -> np.ndarray:
    """At most `count` of `length` indices, evenly spaced, so that no class of a sorted data set is left out; 0: all."""
    if not count or count >= length:
        return np.arange(length)
    return np.arange(count) * length // count


def _batches(
    config: Config, source: Source, mesh: Mesh, task: str, function: Any
) -> Iterator[tuple[dict[str, np.ndarray], Any]]:
    """(batch, `function` of the batch on the devices), one batch behind, so that the host works while devices do."""
    loader = eval_loader(
        source,
        batch_size=config.evaluation.batch_size,
        transforms=record_transforms(config.data, train=False),
        **reading_options(config.data),
    )
    progress = Progress(task, total=len(source), unit="images")
    since, last_report, done = time.monotonic(), 0.0, 0
    unreadable: list[str] = []
    pending: tuple[dict[str, np.ndarray], Any] | None = None
    for batch in itertools.chain(loader, [None]):  # None: nothing more to start, the last result to take
        result = None if batch is None else function(shard_batch({k: batch[k] for k in ("pixels", "label")}, mesh))
        if pending is not None:
            yield pending[0], jax.device_get(pending[1])
            there = pending[0]["index"] >= 0  # not padding
            unreadable += [source.name(done + row) for row in np.flatnonzero(there & ~pending[0]["mask"]).tolist()]
            done += int(there.sum())
            now = time.monotonic()
            if now - last_report > 5 or done == len(source):
                last_report = now
                progress.report(done, f"{done / (now - since):,.1f} images/s")
        pending = None if batch is None else (batch, result)
    if unreadable:
        progress.say(describe_unreadable(unreadable))


def _means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean of each metric over images, per head and method."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["head"]), []).append(row)
    return [
        {"head": head, "method": method}
        | {metric: float(np.mean([row[metric] for row in group], dtype=np.float64)) for metric in METRICS}
        for (method, head), group in sorted(groups.items(), key=lambda item: item[0][0] == "attention")
    ]


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist([{k: _plain(v) for k, v in row.items()} for row in rows]), temporary)


def _write_gallery(path: Path, images: list[dict[str, Any]]) -> None:
    arrays: dict[str, Any] = {key: np.stack([image[key] for image in images]) for key in images[0]}
    with replacing(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _count_parameters(model: Model, head: str) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model.heads[head], nnx.Param)))


def _versions() -> dict[str, str]:
    packages = ("jax", "jaxlib", "flax", "numpy", "grain")
    return {"castream_jax": __version__} | {name: importlib.metadata.version(name) for name in packages}
