"""Validation during training: accuracy of every head, or mAP where images have several labels."""

from collections.abc import Callable, Sequence
import itertools
import math
from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import Array
import numpy as np

from castream_jax.data import describe_unreadable, evaluation_batches, open_source
from castream_jax.data.renumbered import classes_without_images, listed
from castream_jax.data.subset import Subset
from castream_jax.experiment.config import Config
from castream_jax.experiment.model_parts import ModelParts
from castream_jax.experiment.selection import validation_data
from castream_jax.metrics.average_precision import mean_average_precision
from castream_jax.model import to_unit_range
from castream_jax.runtime.mesh import replicated, shard_batch, split_over_images
from castream_jax.training.step import State, hit

Tree = Any


def make_validation(
    config: Config, parts: ModelParts, mesh: Mesh, class_names: Sequence[str] | None, say: Callable[[str], None]
) -> Callable[[State, Tree], dict[str, float]] | None:
    """The function `(state, frozen) -> {head: score}` over all of the validation data, GAP among the heads.

    The score is the accuracy over the images that can be read or, with `config.train.loss == "binary_cross_entropy"`,
    the mean over classes of the average precision, as scikit-learn defines it; a class of which the data has no image
    is left out, and so is an image whose `target_mask` is False from the ranking of that class. Each process reads its
    share of every batch; all of them get the scores.

    Args:
        config: of the training; without `config.train.validate_every`, there is no validation.
        parts: of the model.
        mesh: devices that share each batch.
        class_names: of the training data.
        say: told of images that cannot be read, and of classes without images.

    Raises:
        ValueError, FileNotFoundError: if there is no such data, or it has other classes.
    """
    if not config.train.validate_every:
        return None
    if config.train.loss == "distillation":  # whose training data may have classes of their own
        class_names = None
    source = open_source(config.data, validation_data(config), rows="images", class_names=class_names)
    if absent := classes_without_images(source):
        say(f"{len(absent)} of {len(source.class_names)} classes have no image to validate on: {listed(absent)}")
    batch_size = config.train.batch_size // config.train.accumulate
    share = Subset(source, range(jax.process_index(), len(source), jax.process_count()))
    multi_label = config.train.loss == "binary_cross_entropy"

    def compute_logits(state: Tree, frozen: Tree, pixels: Array) -> dict[str, Array]:
        model = parts.merge(state["params"], state["stats"], frozen)
        model.backbone.eval()
        return model(to_unit_range(pixels))

    def count_hits(state: Tree, frozen: Tree, batch: dict[str, Array]) -> dict[str, Any]:
        all_logits = compute_logits(state, frozen, batch["pixels"])
        hits = {name: (hit(logits, batch["label"]) * batch["mask"]).sum() for name, logits in all_logits.items()}
        return {"hits": hits, "images": batch["mask"].sum()}

    def collect_scores(state: Tree, frozen: Tree, batch: dict[str, Array]) -> dict[str, Any]:
        labels = {key: batch[key] for key in ("target", "target_mask", "mask")}
        return {"logits": compute_logits(state, frozen, batch["pixels"]), **labels}

    whole = replicated(mesh)
    function = jax.jit(
        collect_scores if multi_label else count_hits,
        in_shardings=(whole, whole, split_over_images(mesh)),
        out_shardings=whole,
    )
    labels = ("target", "target_mask") if multi_label else ("label",)

    def validate(state: State, frozen: Tree) -> dict[str, float]:
        trained = {"params": state.get("average", state["params"]), "stats": state["stats"]}
        batches = iter(evaluation_batches(config.data, share, batch_size // jax.process_count()))
        results = []
        # A process whose share is shorter may run out of batches first: it joins the last one with padding.
        padding: dict[str, np.ndarray] = {}
        for batch in itertools.islice(
            itertools.chain(batches, itertools.repeat(None)), math.ceil(len(source) / batch_size)
        ):
            if batch is not None:
                batch = {key: batch[key] for key in ("pixels", *labels, "mask")}
                padding = {key: np.zeros_like(rows) for key, rows in batch.items()}
            results.append(jax.device_get(function(trained, frozen, shard_batch(batch or padding, mesh))))
        if batches.unreadable:
            say(describe_unreadable(batches.unreadable))
        batches.close()
        return _mean_average_precision(results) if multi_label else _accuracy(results)

    return validate


def _accuracy(results: list[dict[str, Any]]) -> dict[str, float]:
    images = sum(int(result["images"]) for result in results)
    if not images:
        raise ValueError("None of the images to validate on can be read: run `castream data check` on them.")
    return {name: sum(int(result["hits"][name]) for result in results) / images for name in results[0]["hits"]}


def _mean_average_precision(results: list[dict[str, Any]]) -> dict[str, float]:
    rows = np.concatenate([result["mask"] for result in results])
    targets, counted = (np.concatenate([r[key] for r in results])[rows] > 0 for key in ("target", "target_mask"))
    logits = {name: np.concatenate([r["logits"][name] for r in results])[rows] for name in results[0]["logits"]}
    return {name: mean_average_precision(scores, targets, counted) for name, scores in logits.items()}
