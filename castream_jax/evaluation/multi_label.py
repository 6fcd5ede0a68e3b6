"""Recognition of images with several labels: every head's logits of every image, and their mean average precision."""

from collections.abc import Iterator
import shutil
from typing import Any

from jaxtyping import Bool, Float
import numpy as np
import pyarrow as pa

from castream_jax.data import Source
from castream_jax.evaluation.statistics import bootstrap_counts, interval
from castream_jax.evaluation.summary import REFERENCE
from castream_jax.experiment.workdir import Workdir
from castream_jax.metrics.average_precision import mean_average_precision, resampled_average_precision
from castream_jax.runtime.atomic_files import replacing

MEASURE = "mean_average_precision"

# Fewer than of the means: each resample ranks all images anew, for every class.
RESAMPLES = 1000


def class_scores_table(batches: Iterator[tuple[Any, dict[str, Float[np.ndarray, "b k"]]]], source: Source) -> pa.Table:
    """A row per image and head: index, name, head, logits, target, and whether each class counts.

    Args:
        batches: of an `eval_loader`, each beside the heads' logits.
        source: has the images' names.
    """
    columns: dict[str, list[Any]] = {name: [] for name in ("index", "name", "head", "logits", "target", "target_mask")}
    for batch, logits in batches:
        for i in np.flatnonzero(batch["mask"]):
            index = int(batch["index"][i])
            for head, head_scores in logits.items():
                row = (index, source.name(index), head, head_scores[i], batch["target"][i] > 0, batch["target_mask"][i])
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
    return pa.table(columns)


def share_class_scores(given: Workdir, wanting: Workdir) -> None:
    """Copies the table of one protocol's results to those of another of the same run: logits know no protocol."""
    if given.class_scores.is_file() and not wanting.class_scores.exists():
        with replacing(wanting.class_scores) as temporary:
            shutil.copyfile(given.class_scores, temporary)


def summarise_class_scores(table: pa.Table) -> dict[str, dict[str, Any]]:
    """Per head its mean average precision, as scikit-learn defines it, with a bootstrap interval over images.

    A stream has its `difference` to GAP, too, from the same resamples. A class that no image of a resample shows is
    left out of that resample's mean, as one that no image shows is left out of the mean.

    Args:
        table: see `class_scores_table`.
    """
    heads = table["head"].unique().to_pylist()
    head_rows = {head: table.filter(np.asarray(table["head"]) == head) for head in heads}
    targets, counted = (_matrix(head_rows[heads[0]][name]) for name in ("target", "target_mask"))
    logits = {head: _matrix(rows["logits"]) for head, rows in head_rows.items()}
    means = {head: mean_average_precision(scores, targets, counted) for head, scores in logits.items()}
    samples = {head: _resampled_means(scores, targets, counted) for head, scores in logits.items()}
    entries: dict[str, dict[str, Any]] = {}
    for head in heads:
        entries[head] = {MEASURE: means[head], "intervals": {MEASURE: interval(samples[head]).tolist()}}
        if head != REFERENCE and REFERENCE in heads:
            bounds = interval(samples[head] - samples[REFERENCE]).tolist()
            entries[head]["difference"] = {MEASURE: means[head] - means[REFERENCE], "intervals": {MEASURE: bounds}}
    return entries


def _resampled_means(
    scores: Float[np.ndarray, "n k"], positives: Bool[np.ndarray, "n k"], counted: Bool[np.ndarray, "n k"]
) -> Float[np.ndarray, " resamples"]:
    blocks = [
        np.stack(
            [
                resampled_average_precision(class_scores, here, times * which[None])
                for class_scores, here, which in zip(scores.T, positives.T, counted.T, strict=True)
                if here.any()
            ]
        )
        for times in bootstrap_counts(len(scores), RESAMPLES)
    ]
    return np.nanmean(np.concatenate(blocks, axis=1), axis=0)


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    return np.stack(column.to_numpy())
