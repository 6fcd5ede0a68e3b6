"""The test split during training: accuracy of every head, or mAP where images have several labels."""

from collections.abc import Callable
import itertools
import math
from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import Array
import numpy as np

from castream_jax.data import evaluation_batches, open_source
from castream_jax.data.subset import Subset
from castream_jax.experiment.config import Config
from castream_jax.experiment.model_parts import ModelParts
from castream_jax.metrics.average_precision import mean_average_precision
from castream_jax.runtime.mesh import replicated, shard_batch, split_over_images
from castream_jax.training.step import State, hit, to_unit_range

Tree = Any


def make_validation(config: Config, parts: ModelParts, mesh: Mesh) -> Callable[[State, Tree], dict[str, float]]:
    """The function `(state, frozen) -> {head: score}` over the whole test split, GAP among the heads.

    The score is the accuracy or, with `config.train.loss == "binary_cross_entropy"`, the mean over classes of the
    average precision, as scikit-learn defines it; a class of which the split has no image is left out, and so is an
    image whose `target_mask` is False from the ranking of that class. Each process reads its share of every batch; all
    of them get the scores.

    Raises:
        ValueError, FileNotFoundError: if there is no such data.
    """
    source = open_source(config.data, "test", rows="images")
    batch_size = config.train.batch_size // config.train.accumulate
    share = Subset(source, range(jax.process_index(), len(source), jax.process_count()))
    multi_label = config.train.loss == "binary_cross_entropy"

    def compute_logits(state: Tree, frozen: Tree, pixels: Array) -> dict[str, Array]:
        model = parts.merge(state["params"], state["stats"], frozen)
        model.backbone.eval()
        return model(to_unit_range(pixels))

    def count_hits(state: Tree, frozen: Tree, batch: dict[str, Array]) -> dict[str, Array]:
        all_logits = compute_logits(state, frozen, batch["pixels"])
        return {name: (hit(logits, batch["label"]) * batch["mask"]).sum() for name, logits in all_logits.items()}

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
        trained = {"params": state["params"], "stats": state["stats"]}
        loader = evaluation_batches(config.data, share, batch_size // jax.process_count())
        results = []
        # A process whose share is shorter may run out of batches first: it joins the last one with padding.
        padding: dict[str, np.ndarray] = {}
        for batch in itertools.islice(
            itertools.chain(loader, itertools.repeat(None)), math.ceil(len(source) / batch_size)
        ):
            if batch is not None:
                batch = {key: batch[key] for key in ("pixels", *labels, "mask")}
                padding = {key: np.zeros_like(rows) for key, rows in batch.items()}
            results.append(jax.device_get(function(trained, frozen, shard_batch(batch or padding, mesh))))
        if multi_label:
            return _mean_average_precision(results)
        return {name: sum(int(hits[name]) for hits in results) / len(source) for name in results[0]}

    return validate


def _mean_average_precision(results: list[dict[str, Any]]) -> dict[str, float]:
    rows = np.concatenate([result["mask"] for result in results])
    targets, counted = (np.concatenate([r[key] for r in results])[rows] > 0 for key in ("target", "target_mask"))
    logits = {name: np.concatenate([r["logits"][name] for r in results])[rows] for name in results[0]["logits"]}
    return {name: mean_average_precision(scores, targets, counted) for name, scores in logits.items()}
