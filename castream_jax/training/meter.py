"""What a training leaves while it runs: losses, learning rate, speed since the last report, scores, checkpoints."""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import math
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import optax

from castream_jax.data.loader import Batch
from castream_jax.experiment.checkpoint import Checkpoints
from castream_jax.experiment.config import Config
from castream_jax.runtime.mesh import replicate
from castream_jax.runtime.progress import Progress
from castream_jax.training.logs import MetricLogs
from castream_jax.training.step import State

_LONG = 0.1  # share of the time that devices waited for images which is worth a word

# (state, frozen) -> {head: score}
Validation = Callable[[State, Any], dict[str, float]]


class Length(NamedTuple):
    """How long a training is: `epochs` over so many `images`, in batches."""

    images: int
    batch_size: int
    epochs: float

    @property
    def steps(self) -> int:
        """Whole batches of all epochs."""
        return int(self.epochs * self.images) // self.batch_size

    @property
    def steps_per_epoch(self) -> float:
        """Not rounded: an epoch may end within a batch."""
        return self.images / self.batch_size

    def completes(self, epochs: int, step: int) -> bool:
        """Whether `step` completes another `epochs`, or is the last one."""
        interval = epochs * self.images
        crossed = step * self.batch_size // interval > (step - 1) * self.batch_size // interval
        return crossed or step == self.steps


@dataclasses.dataclass
class Meter:
    """Reads, logs, prints and saves what is due after a step."""

    config: Config
    length: Length
    schedules: Mapping[str, optax.Schedule]  # learning rate of each trained head as a function of the step
    validation: Validation | None  # see `make_validation`; None for a training without
    mesh: Mesh
    logs: MetricLogs
    progress: Progress
    checkpoints: Checkpoints  # the last one is named where the training cannot go on

    def __post_init__(self) -> None:
        self._since = time.perf_counter()
        self._reported, self._waited, self._advised = 0, 0.0, False

    def next_batch(self, iterator: Iterator[Batch]) -> Batch:
        """The next batch, and a note of how long it took."""
        begin = time.perf_counter()
        batch = next(iterator)
        self._waited += time.perf_counter() - begin
        return batch

    def report(self, step: int, state: State) -> State:
        """Means since the last report, where another is due.

        Returns:
            The state, its totals back at zero where they were read.

        Raises:
            FloatingPointError: if one of them is not finite.
        """
        if step % self.config.train.log_every and step < self.length.steps:
            return state
        begin = time.perf_counter()
        values, state = _read_totals(state, self.config, self.mesh)
        _check_finite(values, step, self.checkpoints)
        now = time.perf_counter()
        seconds, steps = now - self._since, step - self._reported
        images_per_second = values.pop("images") / seconds
        # Devices that still had a step to end did not wait: the host was ahead of them.
        waited = self._waited / seconds if now - begin < seconds / steps else 0.0
        self._since, self._reported, self._waited = now, step, 0.0
        told = {"epoch": step / self.length.steps_per_epoch, **self._rates(step - 1), **values}
        self.logs.write(step, {**told, "images_per_second": images_per_second})
        wait = f" · waited {waited:.0%}" if waited > _LONG else ""
        self.progress.report(step, f"{_describe(values)} · {images_per_second:,.0f} images/s{wait}")
        if wait and not self._advised:
            self._advised = True
            threads, workers = self.config.data.num_threads, self.config.data.num_workers
            self.progress.say(
                f"the devices waited {waited:.0%} of the time for images: more threads (config.data.num_threads, now "
                f"{threads}{' = automatic' if threads < 0 else ''}) or worker processes (config.data.num_workers, now "
                f"{workers}) may read them faster"
            )
        return state

    def validate(self, step: int, state: State, frozen: Any) -> float | None:
        """Scores on the validation data, where they are due; their mean over the trained heads, for the best."""
        if self.validation is None or not self.length.completes(self.config.train.validate_every, step):
            return None
        begin = time.perf_counter()
        measure = "mean_average_precision" if self.config.train.loss == "binary_cross_entropy" else "accuracy"
        scores = self.validation(state, frozen)
        told = {f"{name}/validation_{measure}": score for name, score in scores.items()}
        self.logs.write(step, told)
        self.progress.say(f"step {step:,} · {_describe(told)}")
        self._since += time.perf_counter() - begin  # no time of the training
        return sum(scores[name] for name in sorted(self.schedules)) / len(self.schedules)

    def save(self, step: int, state: State, iterator: Any, score: float | None) -> None:
        """A checkpoint, see `Checkpoints.save`; the metrics that led to it come first."""
        self.logs.send()
        self.checkpoints.save(step, state, iterator, score)

    def _rates(self, step: int) -> dict[str, float]:
        """The learning rate, once if it is the same for all heads."""
        with jax.transfer_guard("allow"):  # a handful of scalars per report
            rates = {name: float(jnp.asarray(schedule(step))) for name, schedule in sorted(self.schedules.items())}
        if len(set(rates.values())) == 1:
            return {"learning_rate": next(iter(rates.values()))}
        return {f"{name}/learning_rate": rate for name, rate in rates.items()}


def _read_totals(state: State, config: Config, mesh: Mesh) -> tuple[dict[str, float], State]:
    """Means since the last report, fetched from the device; and the state with its totals back at zero."""
    measure = "agreement" if config.train.loss == "distillation" else "accuracy"  # with GAP's predictions; with labels
    totals = jax.device_get(state["totals"])
    images = int(totals["images"])
    values: dict[str, float] = {"images": images}
    for name, sums in totals["heads"].items():
        values[f"{name}/loss"] = float(sums["loss"]) / images
        values[f"{name}/{measure}"] = int(sums["correct"]) / images
    zeros = replicate(jax.tree.map(lambda value: value * 0, totals), mesh)
    return values, {**state, "totals": zeros}


def _check_finite(values: dict[str, float], step: int, checkpoints: Checkpoints) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            last = checkpoints.latest_step
            kept = f"checkpoint {last} is intact" if last is not None else "no checkpoint was written yet"
            raise FloatingPointError(
                f"{name} is {value} at step {step}, so training stops ({kept}): lower config.optimizer.learning_rate."
            )


def _describe(values: dict[str, float]) -> str:
    return " · ".join(
        f"{name.replace('_', ' ')} {value:.3f}" if name.endswith("loss") else f"{name.replace('_', ' ')} {value:.1%}"
        for name, value in values.items()
    )
