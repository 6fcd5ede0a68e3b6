"""One training and one evaluation at a time in a workdir."""

from collections.abc import Iterator
import contextlib
import datetime
import json
import os
from pathlib import Path
import socket
from typing import Literal

import filelock
import jax
from jax.experimental import multihost_utils
import numpy as np

from castream_jax.experiment.workdir import Workdir
from castream_jax.runtime.atomic_files import write_json
from castream_jax.runtime.progress import Progress

Work = Literal["training", "evaluation"]


@contextlib.contextmanager
def only_one(workdir: Workdir, work: Work) -> Iterator[None]:
    """Around what writes to a workdir, whose folder is made: a second run of the same work is turned away.

    A training and an evaluation write to different places, and may run at the same time. Process 0 holds the lock for
    all processes of a run. The operating system releases it when the holder dies, however it dies. That holds on
    local file systems, and on network file systems whose servers pass locks on (NFS with its lock daemon, Lustre and
    GPFS mounted with flock); where there are no locks, that is said, and the work goes on.

    Raises:
        ValueError: the workdir is in use; says by whom and since when.
    """
    path = workdir.training_lock if work == "training" else workdir.evaluation_lock
    holder = path.with_suffix(".json")
    lock = filelock.FileLock(path)
    if not _agreed(jax.process_index() != 0 or _acquired(lock, work)):
        raise ValueError(
            f"{workdir} is in use: {_described(holder, work)}. Wait until it has ended, or give another --workdir."
        )
    try:
        if lock.is_locked:
            now = datetime.datetime.now(datetime.UTC).astimezone().isoformat(sep=" ", timespec="seconds")
            write_json(holder, {"host": socket.gethostname(), "process": os.getpid(), "since": now})
        yield
    finally:
        if lock.is_locked:
            holder.unlink(missing_ok=True)
            lock.release()


def _acquired(lock: filelock.BaseFileLock, work: Work) -> bool:
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return False
    except (OSError, NotImplementedError) as error:
        if isinstance(error, PermissionError):
            raise
        Progress(work, total=0, unit="").say(
            f"this file system has no locks ({error}): nothing keeps a second {work} out of this workdir"
        )
    return True


def _agreed(free: bool) -> bool:
    """What process 0 found, in every process."""
    if jax.process_count() == 1:
        return free
    return bool(multihost_utils.broadcast_one_to_all(np.int32(free)))


def _described(holder: Path, work: Work) -> str:
    try:
        by = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {by['process']} on host {by['host']} has held it for its {work} since {by['since']}"
    except (OSError, ValueError, KeyError):  # it is just being written
        return f"another {work} has just begun there"
