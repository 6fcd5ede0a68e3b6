"""The long part of an evaluation: batches go to the devices, and what comes back is written part by part."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import jax
from jaxtyping import Bool, Int
import numpy as np

from castream_jax.attribution import upsample
from castream_jax.attribution.chunk_size import chunk_for
from castream_jax.data import Source, describe_unreadable, evaluation_batches
from castream_jax.data.loader import Batch
from castream_jax.data.subset import Subset
from castream_jax.evaluation.on_device import explain_batch, predict_batch
from castream_jax.evaluation.open import Evaluation
from castream_jax.evaluation.parts import EvaluationPart, Tree, regroup, take, write_part
from castream_jax.metrics.localisation import localisation_scores
from castream_jax.runtime.mesh import shard_batch
from castream_jax.runtime.progress import Progress

# From pixels and labels on the devices to (results, what is drawn: {"map": maps, "range": of raw attention}) there.
OnDevice = Callable[[jax.Array, jax.Array], tuple[Tree, Tree]]

T = TypeVar("T")


def explain_parts(evaluation: Evaluation, parts: Sequence[EvaluationPart], say: Callable[[str], None]) -> None:
    """Writes the parts that are not there yet, each process its own: explains images, then only predicts the others.

    Args:
        evaluation: what to do.
        parts: of all processes.
        say: told of images that cannot be read.
    """
    model, methods, protocol = evaluation.model, evaluation.methods, evaluation.protocol
    memory_bytes = evaluation.config.evaluation.memory_mib * 2**20

    def explain(pixels: jax.Array, label: jax.Array) -> tuple[Tree, Tree]:
        chunk = chunk_for(model, *pixels.shape[1:3], memory_bytes=memory_bytes)
        seen, maps, scores = explain_batch(model, pixels, label, methods=methods, protocol=protocol, chunk=chunk)
        return {"top": seen.top, "finite": seen.finite, "scores": scores}, {"map": maps, "range": seen.attention}

    def predict(pixels: jax.Array, label: jax.Array) -> tuple[Tree, Tree]:
        seen = predict_batch(model, pixels)
        return {"top": seen.top, "finite": seen.finite, "scores": {}}, {"map": {}, "range": {}}

    own = parts[jax.process_index() :: jax.process_count()]
    _write_parts(evaluation, [part for part in own if part.explained], explain, "interpretability", say)
    _write_parts(evaluation, [part for part in own if not part.explained], predict, "accuracy", say)


def one_behind(function: Callable[[Batch], T], batches: Iterable[Batch]) -> Iterator[tuple[Batch, T]]:
    """(batch, `function` of it), the next one started before this one is handed out: host and devices work at once."""
    pending: tuple[Batch, T] | None = None
    for batch in batches:
        started = batch, function(batch)
        if pending is not None:
            yield pending
        pending = started
    if pending is not None:
        yield pending


def check_outputs(
    finite: Mapping[str, Bool[np.ndarray, " b"]],
    scores: Mapping[tuple[str, str], Mapping[str, np.ndarray]],
    batch: Batch,
    source: Source,
) -> None:
    """Raises a ValueError that names the first image on which a head's logits, or a score, are not finite.

    Args:
        finite: per head, whether its logits are.
        scores: per head and method, see `castream.score`.
        batch: of an `eval_loader` over `source`, or a part of it.
        source: has the images' names.
    """
    checks = {f"the logits of head {head!r}": here for head, here in finite.items()}
    for (head, method), of_key in scores.items():
        whole = [np.isfinite(values).reshape(len(values), -1).all(1) for values in of_key.values()]
        checks[f"a score of {method!r} under head {head!r}"] = np.all(whole, axis=0)
    for what, here in checks.items():
        if (wrong := np.flatnonzero(~here & batch["mask"])).size:
            name = source.name(int(batch["index"][wrong[0]]))
            raise ValueError(
                f"{name}: the model's output is not finite ({what}): look at its weights, and at the type it computes "
                "in (config.backbone.dtype). The parts of the evaluation that were written before are kept."
            )


def _write_parts(
    evaluation: Evaluation, parts: Sequence[EvaluationPart], function: OnDevice, task: str, say: Callable[[str], None]
) -> None:
    """Writes those of the parts that are not there yet, one after the other, from one stream of batches."""
    config, source, workdir = evaluation.config, evaluation.source, evaluation.workdir
    missing = [part for part in parts if not part.is_whole(workdir)]
    if not missing:
        return
    positions = np.concatenate([part.positions for part in missing])
    shown = np.isin(positions, np.concatenate([part.shown for part in missing]))
    total = sum(len(part.positions) for part in parts)
    progress = Progress(task, total=total, unit="images", done=total - len(positions))
    batches = iter(evaluation_batches(config.data, Subset(source, positions), evaluation.batch_size))
    results = _results(batches, positions, shown, evaluation, function, progress)
    for part, grouped in zip(missing, regroup(results, [len(part.positions) for part in missing]), strict=True):
        write_part(workdir, part, grouped, source, evaluation.protocol.hash, curves=config.evaluation.curves)
    if batches.unreadable:
        say(describe_unreadable(batches.unreadable))
    batches.close()


def _results(
    batches: Iterable[Batch],
    positions: Int[np.ndarray, " images"],
    shown: Bool[np.ndarray, " images"],
    evaluation: Evaluation,
    function: OnDevice,
    progress: Progress,
) -> Iterator[Tree]:
    """What `write_part` needs of the images, batch by batch, without the padding.

    `positions` of the images in the source, and whether each is `shown` in the gallery, are in the order of `batches`.
    An image that could not be read is not `readable`, and not among the shown.
    """

    def start(batch: Batch) -> tuple[Tree, Tree]:
        given = shard_batch({name: batch[name] for name in ("pixels", "label")}, evaluation.mesh)
        return function(given["pixels"], given["label"])

    at = 0
    for batch, (results, drawn) in one_behind(start, batches):
        count = int((batch["index"] >= 0).sum())
        here = slice(at, at + count)
        at += count
        images = np.full(count, None, object)
        wanted = shown[here] & batch["mask"][:count]
        if wanted.any() or "box" in batch:  # maps are large, and often wanted for few images
            drawn = jax.device_get(drawn)
            for i in np.flatnonzero(wanted):
                images[i] = {"position": positions[here][i], **{k: batch[k][i] for k in batch if k != "mask"}}
                for kind, of_kind in drawn.items():
                    images[i] |= {f"{kind}/{head}/{method}": values[i] for (head, method), values in of_kind.items()}
        given = {"index": batch["index"], "label": batch["label"], "readable": batch["mask"]}
        results = jax.device_get(results)
        check_outputs(results.pop("finite"), results["scores"], batch, evaluation.source)
        results |= given
        if "box" in batch:
            for key, saliency in drawn["map"].items():
                at_size = np.asarray(upsample(jax.device_put(saliency), *batch["pixels"].shape[1:3]))
                results["scores"][key] |= localisation_scores(at_size, batch["box"].reshape(len(at_size), -1, 4))
        progress.pace(at)
        yield {**take(results, slice(count)), "shown": images}
