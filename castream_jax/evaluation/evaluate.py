"""`evaluate`: a trained experiment on its whole test split, GAP beside every stream, on identical masked images."""

from collections.abc import Mapping
import contextlib
import math
import os
import time
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from castream_jax.evaluation.explain_parts import explain_parts
from castream_jax.evaluation.identity import claim_results
from castream_jax.evaluation.multi_label import share_class_scores
from castream_jax.evaluation.open import Evaluation, open_evaluation, under
from castream_jax.evaluation.parts import EvaluationPart, list_parts
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

    The same is done under each of `config.evaluation.further_protocols`, with results of its own in
    `evaluation/under-<protocol>/`. Images are read once, and go through the trunk once, for all of them; the masked
    images are each protocol's.

    Parts that are there already, whole and of this very run (see `identify`), are kept: an interrupted evaluation
    continues. Of several processes each computes parts of its own on its own devices; they need one file system, or a
    workdir in a bucket, and meet only before the first part and after the last.

    Args:
        config: see `castream_jax.experiment.config.base_config`.
        workdir: folder of a trained experiment, or its address in a bucket.
        mesh: devices of this process to use; by default all of them.

    Returns:
        The summary under `config.evaluation.protocol`: metrics as fractions.

    Raises:
        FileNotFoundError: if there is no trained model or no data.
        ValueError: if workdir, weights, data, methods or protocol do not fit, the model's output is not finite on an
            image, or another evaluation holds the workdir.
    """
    # --- open ---
    mesh = data_mesh(jax.local_devices()) if mesh is None else mesh
    main = open_evaluation(config, workdir, mesh)
    evaluations = [main, *(under(main, name) for name in dict.fromkeys(config.evaluation.further_protocols))]
    settings, images = config.evaluation, len(main.source)

    with contextlib.ExitStack() as stack:
        stack.enter_context(only_one(main.workdir, "evaluation"))
        for evaluation in evaluations:
            stack.enter_context(restoring_results(evaluation.workdir))

        # --- resume ---
        say = Progress("evaluate", total=images, unit="images").say
        for remark in main.remarks():
            say(remark)
        if jax.process_index() == 0:
            part_size = math.ceil(settings.images_per_part / settings.batch_size) * settings.batch_size
            for evaluation in evaluations:
                claim_results(evaluation.workdir, evaluation.identity, part_size, say)
        wait_for_all_processes()
        works = [_work(evaluation) for evaluation in evaluations]
        left = max(work.left for work in works)
        if left < images:
            there = f"{images - left:,} of {images:,} images"
            say(f"continuing after {there}" if left else f"{there} were there already")

        # --- explain parts ---
        begin = time.perf_counter()
        for size in dict.fromkeys(work.part_size for work in works):  # of one size, unless some were begun with another
            together = [work for work in works if work.part_size == size]
            explain_parts([work.evaluation for work in together], together[0].parts, say)
        wait_for_all_processes()
        seconds = time.perf_counter() - begin

        # --- summarise ---
        if jax.process_index() == 0:
            for work in works:
                share_class_scores(main.workdir, work.evaluation.workdir)
                write_summary(work.evaluation, work.parts, work.left, seconds)
        wait_for_all_processes()
        summary = main.workdir.read_summary()
        if remark := _remark_on_chance(summary):
            say(remark)
        return summary


class _Work(NamedTuple):
    """The parts of an evaluation, and how many images are `left` to do."""

    evaluation: Evaluation
    part_size: int
    parts: list[EvaluationPart]
    left: int


def _work(evaluation: Evaluation) -> _Work:
    settings, size = evaluation.config.evaluation, evaluation.workdir.read_run()["part_size"]
    parts = list_parts(len(evaluation.source), size, settings.max_images, settings.gallery)
    left = sum(len(part.positions) for part in parts if not part.is_whole(evaluation.workdir))
    return _Work(evaluation, size, parts, left)


def _remark_on_chance(summary: Mapping[str, Any]) -> str:
    """What to say where the frozen classifier knows nothing of the images, as where classes have other numbers."""
    accuracy, classes = summary["heads"].get("gap", {}).get("accuracy"), len(summary["class_names"])
    if accuracy is None or classes < 3 or accuracy > 1.5 / classes:
        return ""
    return (
        f"under GAP, {accuracy:.1%} of the images are classified rightly, which is chance: are the classes numbered as "
        "the backbone was trained?"
    )
