"""The end of an evaluation: its parts become a gallery, mean curves and a summary."""

from collections.abc import Iterable, Iterator, Sequence
import datetime
import importlib.metadata
from typing import Any

from flax import nnx
import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from castream_jax.data import evaluation_batches, open_source
from castream_jax.data.loader import Batch
from castream_jax.data.source import has_several_labels
from castream_jax.evaluation.explain_parts import check_outputs, one_behind
from castream_jax.evaluation.identity import identity_hash
from castream_jax.evaluation.multi_label import class_scores_table, summarise_class_scores
from castream_jax.evaluation.on_device import logits_batch
from castream_jax.evaluation.open import Evaluation
from castream_jax.evaluation.parts import EvaluationPart, write_gallery
from castream_jax.evaluation.sanity import BASELINES, sanity_check
from castream_jax.evaluation.statistics import CONFIDENCE, RESAMPLES, SEED
from castream_jax.evaluation.summary import (
    PREDICTION_COLUMNS,
    ROW_COLUMNS,
    summarise_localisation,
    summarise_predictions,
    summarise_rows,
)
from castream_jax.experiment.results import read_parts, write_table
from castream_jax.experiment.selection import describe_checkpoint
from castream_jax.experiment.workdir import Workdir
from castream_jax.runtime.atomic_files import write_json
from castream_jax.runtime.mesh import shard_batch
from castream_jax.version import __version__

Summary = dict[str, Any]


def write_summary(evaluation: Evaluation, parts: Sequence[EvaluationPart], images: int, seconds: float) -> None:
    """Writes what follows from all parts; the summary comes last.

    Args:
        evaluation: whose parts they are.
        parts: all of them.
        images: that this command has evaluated.
        seconds: that it took for them, under all protocols.

    Raises:
        ValueError: if a part is not there, or holds no image that could be read.
    """
    workdir, source, protocol = evaluation.workdir, evaluation.source, evaluation.protocol
    if lost := [part.number for part in parts if not part.is_whole(workdir)]:
        raise ValueError(
            f"Part {lost[0]} is not in {workdir.evaluation}: all processes must share the folder of the workdir."
        )
    write_gallery(workdir, parts)
    predictions = read_parts(workdir.predictions, PREDICTION_COLUMNS)
    rows = read_parts(workdir.rows, ROW_COLUMNS)
    if predictions is None or rows is None or not len(rows):
        raise ValueError("None of the images to explain can be read: run `castream data check` on them.")
    reference = evaluation.config.evaluation.reference_method
    references = [name for name in dict.fromkeys((reference, *BASELINES)) if name in evaluation.methods]
    measured = summarise_rows(rows, references)
    localisation = summarise_localisation(rows, references) or {}
    order = [(head, method) for method in evaluation.methods for head in evaluation.model.heads]  # as they were given
    for entries in (*measured[:3], *(found for found in localisation.values() if isinstance(found, list))):
        entries.sort(key=lambda entry: order.index((entry["head"], entry["method"])))
    heads = _recognition(evaluation, predictions)
    readable = len(predictions) // len(heads)
    run = identity_hash(evaluation.identity)
    sanity = sanity_check(evaluation.config, source, evaluation.model_on_one_device(), protocol, workdir, run)
    summary: Summary = {
        "name": evaluation.config.name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "run": run,
        "protocol": {"hash": protocol.hash, **protocol.as_dict()},
        "checkpoint": describe_checkpoint(evaluation.config, evaluation.checkpoint),
        "trunk_fingerprint": evaluation.identity["trunk"],
        "trunk_dtype": evaluation.identity["dtype"],
        "class_names": list(source.class_names),
        "accuracy_images": readable,
        "images": len(rows) // len(measured.means),
        "unreadable_images": len(source) - readable,
        "heads": heads,
        "metrics": measured.means,
        "differences": measured.differences,
        "reference_method": reference,
        "method_differences": measured.method_differences,
        **({"localisation": localisation} if localisation else {}),
        "sanity": sanity["rows"],
        "sanity_images": sanity["images"],
        "bootstrap": {"confidence": CONFIDENCE, "resamples": RESAMPLES, "seed": SEED},
        **_timing(workdir, images, seconds),
        "device": f"{evaluation.mesh.size * jax.process_count()} × {evaluation.mesh.devices.flat[0].device_kind}",
        "versions": _versions(),
    }
    if measured.curves is not None:
        write_table(workdir.curves, measured.curves)
    write_json(workdir.summary, summary)


def _recognition(evaluation: Evaluation, predictions: pa.Table) -> dict[str, Summary]:
    """Per head, in the model's order, how well it classifies and how many parameters it has."""
    source, path = evaluation.source, evaluation.workdir.class_scores
    entries = summarise_predictions(predictions)
    if has_several_labels(source):
        if not path.exists():
            data, names = evaluation.config.data, source.class_names
            images = open_source(data, "test", rows="images", class_names=names)
            batches = iter(evaluation_batches(data, images, evaluation.batch_size))
            write_table(path, class_scores_table(_all_logits(batches, evaluation), images))
            batches.close()
        for head, entry in summarise_class_scores(pq.read_table(path)).items():
            entries[head] = _joined(entries[head], entry)
    sizes = {
        name: sum(leaf.size for leaf in jax.tree.leaves(nnx.state(head, nnx.Param)))
        for name, head in evaluation.model.heads.items()
    }
    return {head: entries[head] | {"parameters": size} for head, size in sizes.items()}


def _all_logits(batches: Iterable[Batch], evaluation: Evaluation) -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
    def start(batch: Batch) -> dict[str, jax.Array]:
        return logits_batch(evaluation.model, shard_batch({"pixels": batch["pixels"]}, evaluation.mesh)["pixels"])

    for batch, logits in one_behind(start, batches):
        logits = jax.device_get(logits)
        finite = {head: np.isfinite(of_head).all(1) for head, of_head in logits.items()}
        check_outputs(finite, {}, batch, evaluation.source)
        yield batch, logits


def _joined(entry: Summary, more: Summary) -> Summary:
    """The fields of both, nested ones, too."""
    nested = {key: _joined(entry[key], more[key]) for key in entry.keys() & more.keys() if isinstance(more[key], dict)}
    return entry | more | nested


def _timing(workdir: Workdir, images: int, seconds: float) -> dict[str, float]:
    """Time of this command's `images`; if there was none left to do, what the summary that is there says."""
    fields = ("timed_images", "seconds", "images_per_second")
    if not images and workdir.summary.exists():
        there = workdir.read_summary()
        return {field: there[field] for field in fields}
    return dict(zip(fields, (images, seconds, images / seconds), strict=True))


def _versions() -> dict[str, str]:
    packages = ("jax", "jaxlib", "flax", "numpy", "grain")
    return {"castream_jax": __version__} | {name: importlib.metadata.version(name) for name in packages}
