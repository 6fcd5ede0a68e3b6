"""Training metrics: one line of `logs/metrics.jsonl` per report; the same for TensorBoard and, by option, W&B."""

from collections.abc import Mapping
import contextlib
import json
from types import TracebackType
from typing import Any
import warnings

import jax

from castream_jax.experiment.config import Config
from castream_jax.experiment.workdir import Workdir
from castream_jax.runtime.atomic_files import json_text, write_atomically
from castream_jax.runtime.bucket_folder import is_copy, send


class MetricLogs:
    """Writes to `logs/` of a workdir, from the first of several processes, continuing where a training stands."""

    def __init__(self, workdir: Workdir, *, resumed_at: int, config: Config):
        """Drops lines after step `resumed_at`: an interrupted run logged them, and training is about to do so again.

        Raises:
            ValueError: if `config.train.wandb` names a project and wandb is not installed.
        """
        self._active = jax.process_index() == 0
        if not self._active:
            return
        workdir.logs.mkdir(exist_ok=True)
        self._wandb = _open_wandb(config, workdir) if config.train.wandb else None
        if workdir.metrics.exists():
            lines = workdir.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
            write_atomically(workdir.metrics, "".join(line for line in lines if _step(line) <= resumed_at))
        self._path = workdir.metrics
        self._lines = self._path.open("a", buffering=1, encoding="utf-8")
        self._board = _open_board(workdir, resumed_at)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One report: scalars at `step`."""
        if not self._active:
            return
        self._lines.write(json_text({"step": step, **values}, str(self._path)) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(dict(values), step=step)

    def send(self) -> None:
        """Sends what was written so far to the bucket of the workdir, where it lies in one.

        An object cannot be appended to. So that no step of a checkpoint is missing, this comes before it.
        """
        if self._active and is_copy(self._path):
            self._board.flush()
            send(self._path.parent)

    def __enter__(self) -> "MetricLogs":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._active:
            self._lines.close()
            self._board.close()
            if self._wandb is not None:
                self._wandb.finish(exit_code=0 if error is None else 1)
            with contextlib.nullcontext() if error is None else contextlib.suppress(OSError):
                send(self._path.parent)


def _open_board(workdir: Workdir, resumed_at: int) -> Any:
    """TensorBoard's writer; one that writes nothing, with a warning, where there are no semaphores, as in a sandbox."""
    # Here: it imports PyTorch where that is installed, for seconds that no evaluation should take.
    from tensorboardX import SummaryWriter

    try:
        return SummaryWriter(str(workdir.logs), purge_step=resumed_at + 1, write_to_disk=True)
    except OSError as error:
        if error.filename:
            raise
        warnings.warn(
            f"TensorBoard's events are not written: this machine gives its processes no semaphores ({error.strerror}; "
            f"on Linux they lie in /dev/shm). {workdir.metrics} has the same numbers.",
            stacklevel=2,
        )
        return SummaryWriter(str(workdir.logs), write_to_disk=False)


def _open_wandb(config: Config, workdir: Workdir) -> Any:
    """The run of this workdir: its id is kept beside the logs, so that a resumed training continues it."""
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            f"config.train.wandb={config.train.wandb!r} needs the package wandb: pip install wandb, or leave it empty."
        ) from error
    if not workdir.wandb_id.exists():
        write_atomically(workdir.wandb_id, wandb.util.generate_id())
    return wandb.init(
        project=config.train.wandb,
        name=config.name,
        id=workdir.wandb_id.read_text(encoding="utf-8"),
        resume="allow",
        dir=workdir.logs,
        config=json.loads(config.to_json()),
    )


def _step(line: str) -> float:
    """Step of a line, infinity for one that a crash cut short."""
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:
        return float("inf")
