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

# From pixels and labels on the devices to (results, of each evaluation what is drawn: {"map": maps, "range": of raw
# attention}) there.
OnDevice = Callable[[jax.Array, jax.Array], tuple[Tree, list[Tree]]]

T = TypeVar("T")


def explain_parts(
    evaluations: Sequence[Evaluation], parts: Sequence[EvaluationPart], say: Callable[[str], None]
) -> None:
    """Writes the parts that are not there yet, each process its own: explains images, then only predicts the others.

    Args:
        evaluations: what to do; they differ in protocol and place alone, and share their passes over the images.
        parts: of all processes.
        say: told of images that cannot be read.
    """
    own = parts[jax.process_index() :: jax.process_count()]
    for explained, task in ((True, "interpretability"), (False, "accuracy")):
        of_task = [part for part in own if part.explained == explained]
        missing_in: dict[tuple[int, ...], list[EvaluationPart]] = {}  # after an interruption, not the same everywhere
        for part in of_task:
            numbers = tuple(n for n, one in enumerate(evaluations) if not part.is_whole(one.workdir))
            missing_in.setdefault(numbers, []).append(part)
        total, done = (sum(len(part.positions) for part in some) for some in (of_task, missing_in.pop((), [])))
        for numbers, missing in missing_in.items():
            chosen = [evaluations[n] for n in numbers]
            _write_parts(chosen, missing, Progress(task, total=total, unit="images", done=done), say)
            done += sum(len(part.positions) for part in missing)


def _on_device(evaluations: Sequence[Evaluation], *, explained: bool) -> OnDevice:
    """What is done to the images of parts that are `explained`, or not."""
    first = evaluations[0]
    model, methods, protocols = first.model, first.methods, tuple(one.protocol for one in evaluations)
    memory_bytes = first.config.evaluation.memory_mib * 2**20

    def explain(pixels: jax.Array, label: jax.Array) -> tuple[Tree, list[Tree]]:
        chunk = chunk_for(model, *pixels.shape[1:3], memory_bytes=memory_bytes)
        seen, maps, scores = explain_batch(model, pixels, label, methods=methods, protocols=protocols, chunk=chunk)
        drawn: list[Tree] = [{"map": of_one, "range": seen.attention} for of_one in maps]
        return {"top": seen.top, "finite": seen.finite, "scores": scores}, drawn

    def predict(pixels: jax.Array, label: jax.Array) -> tuple[Tree, list[Tree]]:
        seen = predict_batch(model, pixels)
        scores: list[Tree] = [{} for _ in evaluations]
        return {"top": seen.top, "finite": seen.finite, "scores": scores}, [{"map": {}, "range": {}}] * len(scores)

    return explain if explained else predict


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
    evaluations: Sequence[Evaluation],
    missing: Sequence[EvaluationPart],
    progress: Progress,
    say: Callable[[str], None],
) -> None:
    """Writes parts of one kind, one after the other, from one stream of batches, for each evaluation."""
    first = evaluations[0]
    config, source = first.config, first.source
    positions = np.concatenate([part.positions for part in missing])
    shown = np.isin(positions, np.concatenate([part.shown for part in missing]))
    function = progress.first_call(_on_device(evaluations, explained=missing[0].explained))
    batches = iter(evaluation_batches(config.data, Subset(source, positions), first.batch_size))
    results = _results(batches, positions, shown, first, function, progress)
    for part, grouped in zip(missing, regroup(results, [len(part.positions) for part in missing]), strict=True):
        for number, evaluation in enumerate(evaluations):
            of_one = {**grouped, **{name: grouped[name][number] for name in ("scores", "shown")}}
            protocol = evaluation.protocol.hash
            write_part(evaluation.workdir, part, of_one, source, protocol, curves=config.evaluation.curves)
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
    """What `write_part` needs of the images, batch by batch, without the padding; a list of `scores` and `shown`.

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
        wanted = shown[here] & batch["mask"][:count]
        if wanted.any() or "box" in batch:  # maps are large, and often wanted for few images
            drawn = jax.device_get(drawn)
        images = [_shown(batch, positions[here], wanted, of_one) for of_one in drawn]
        given = {"index": batch["index"], "label": batch["label"], "readable": batch["mask"]}
        results = jax.device_get(results)
        finite = results.pop("finite")
        for scores in results["scores"]:
            check_outputs(finite, scores, batch, evaluation.source)
        results |= given
        if "box" in batch:
            for scores, of_one in zip(results["scores"], drawn, strict=True):
                for key, saliency in of_one["map"].items():
                    at_size = np.asarray(upsample(jax.device_put(saliency), *batch["pixels"].shape[1:3]))
                    scores[key] |= localisation_scores(at_size, batch["box"].reshape(len(at_size), -1, 4))
        progress.pace(at)
        yield {**take(results, slice(count)), "shown": images}


def _shown(
    batch: Batch, positions: Int[np.ndarray, " images"], wanted: Bool[np.ndarray, " images"], drawn: Tree
) -> np.ndarray:
    """What the gallery is to show of the images of a batch that are `wanted`; None of the others."""
    images = np.full(len(positions), None, object)
    for i in np.flatnonzero(wanted):
        images[i] = {"position": positions[i], **{k: batch[k][i] for k in batch if k != "mask"}}
        for kind, of_kind in drawn.items():
            images[i] |= {f"{kind}/{head}/{method}": values[i] for (head, method), values in of_kind.items()}
    return images
