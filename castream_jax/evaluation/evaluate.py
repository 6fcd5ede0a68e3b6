"""`evaluate`: a trained experiment on its whole test split, GAP beside every stream, on identical masked images."""

from collections.abc import Mapping
import math
import os
import time
from typing import Any

import jax
from jax.sharding import Mesh

from castream_jax.evaluation.explain_parts import explain_parts
from castream_jax.evaluation.identity import claim_results
from castream_jax.evaluation.open import Evaluation, open_evaluation, under
from castream_jax.evaluation.parts import list_parts
from castream_jax.evaluation.replaced import restoring_results
from castream_jax.evaluation.write_summary import write_summary
from castream_jax.experiment.config import Config
from castream_jax.experiment.lock import only_one
from castream_jax.runtime.mesh import data_mesh, wait_for_all_processes
from castream_jax.runtime.progress import Progress


def evaluate(config: Config, workdir: str | os.PathLike[str], *, mesh: Mesh | None = None) -> dict[str, Any]:
    """Accuracy and interpretability of every head, written to `evaluation/` of the workdir.

    `rows/` has one row per image x head x method, `predictions/` one per image x head, in parts (see `parts`);
    `curves.parquet` mean insertion and deletion curves, `gallery.npz` images and maps to look at, `sanity.json` the
    rank correlation of maps with those of randomised streams, `summary.json` the means with intervals. Where images
    have several labels, `class_scores.parquet` has every head's logits of every image, for mAP.

    Accuracy is taken over the whole test split, the rest over `config.evaluation.max_images` of it. Every device is
    given `batch_size` images at a time, the same ones together however many devices and processes there are: in other
    batches sums are rounded differently, and pixels of nearly equal saliency change places. The last batch is padded,
    and the padding is counted nowhere.

    The same is done under each of `config.evaluation.further_protocols`, on the same images and model, with results of
    its own in `evaluation/under-<protocol>/`.

    Parts that are there already, whole and of this very run (see `identify`), are kept: an interrupted evaluation
    continues. Of several processes each computes parts of its own on its own devices; they need one file system, and
    meet only before the first part and after the last.

    Args:
        config: see `castream_jax.experiment.config.base_config`.
        workdir: folder of a trained experiment.
        mesh: devices of this process to use; by default all of them.

    Returns:
        The summary under `config.evaluation.protocol`: metrics as fractions.

    Raises:
        FileNotFoundError: if there is no trained model or no data.
        ValueError: if workdir, weights, data, methods or protocol do not fit, the model's output is not finite on an
            image, or another evaluation holds the workdir.
    """
    mesh = data_mesh(jax.local_devices()) if mesh is None else mesh
    evaluation = open_evaluation(config, workdir, mesh)
    # All of them are checked before the first one begins.
    further = [under(evaluation, name) for name in config.evaluation.further_protocols]
    summary = _evaluate(evaluation)
    for one in further:
        _evaluate(one)
    return summary


def _evaluate(evaluation: Evaluation) -> dict[str, Any]:
    """`evaluate` under one protocol."""
    workdir, settings, images = evaluation.workdir, evaluation.config.evaluation, len(evaluation.source)

    with only_one(workdir, "evaluation"), restoring_results(workdir):
        # --- resume ---
        say = Progress("evaluate", total=images, unit="images").say
        for remark in evaluation.remarks():
            say(remark)
        if jax.process_index() == 0:
            part_size = math.ceil(settings.images_per_part / settings.batch_size) * settings.batch_size
            claim_results(workdir, evaluation.identity, part_size, say)
        wait_for_all_processes()
        parts = list_parts(images, workdir.read_run()["part_size"], settings.max_images, settings.gallery)
        left = sum(len(part.positions) for part in parts if not part.is_whole(workdir))
        if left < images:
            there = f"{images - left:,} of {images:,} images"
            say(f"continuing after {there}" if left else f"{there} were there already")

        # --- explain parts ---
        begin = time.perf_counter()
        explain_parts(evaluation, parts, say)
        wait_for_all_processes()
        seconds = time.perf_counter() - begin

        # --- summarise ---
        if jax.process_index() == 0:
            write_summary(evaluation, parts, left, seconds)
        wait_for_all_processes()
        summary = workdir.read_summary()
        if remark := _remark_on_chance(summary):
            say(remark)
        return summary


def _remark_on_chance(summary: Mapping[str, Any]) -> str:
    """What to say where the frozen classifier knows nothing of the images, as where classes have other numbers."""
    accuracy, classes = summary["heads"].get("gap", {}).get("accuracy"), len(summary["class_names"])
    if accuracy is None or classes < 3 or accuracy > 1.5 / classes:
        return ""
    return (
        f"under GAP, {accuracy:.1%} of the images are classified rightly, which is chance: are the classes numbered as "
        "the backbone was trained?"
    )
