"""One training and one evaluation at a time in a workdir."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import datetime
import json
import os
from pathlib import Path
import socket
from typing import Any, Literal

import filelock
import jax
from jax.experimental import multihost_utils
import numpy as np

from castream_jax.experiment.workdir import Workdir
from castream_jax.runtime.atomic_files import write_json
from castream_jax.runtime.bucket_folder import address_of, is_copy, look_again
from castream_jax.runtime.bucket_lock import BucketLock
from castream_jax.runtime.progress import Progress

Work = Literal["training", "evaluation"]


@contextlib.contextmanager
def only_one(workdir: Workdir, work: Work) -> Iterator[None]:
    """Around what writes to a workdir, whose folder is made: a second run of the same work is turned away.

    A training and an evaluation write to different places, and may run at the same time. Process 0 holds the lock for
    all processes of a run. The operating system releases it when the holder dies, however it dies. That holds on
    local file systems, and on network file systems whose servers pass locks on (NFS with its lock daemon, Lustre and
    GPFS mounted with flock); where there are no locks, that is said, and the work goes on. In a bucket it is an object
    that the holder renews, see `BucketLock`.

    Raises:
        ValueError: the workdir is in use; says by whom and since when.
    """
    path = workdir.training_lock if work == "training" else workdir.evaluation_lock
    with (_in_bucket if is_copy(path) else _on_disk)(path, work) as (free, described):
        if not _agreed(free):
            raise ValueError(f"{workdir} is in use: {described()}. Wait until it has ended, or give another --workdir.")
        look_again()
        yield


@contextlib.contextmanager
def _on_disk(path: Path, work: Work) -> Iterator[tuple[bool, Callable[[], str]]]:
    """Holds the lock in process 0; whether it was free, and else who has it."""
    holder = path.with_suffix(".json")
    lock = filelock.FileLock(path)
    free = jax.process_index() != 0 or _acquired(lock, work)
    try:
        if lock.is_locked:
            write_json(holder, _this_process())
        yield free, lambda: _described(holder, work)
    finally:
        if lock.is_locked:
            holder.unlink(missing_ok=True)
            lock.release()


@contextlib.contextmanager
def _in_bucket(path: Path, work: Work) -> Iterator[tuple[bool, Callable[[], str]]]:
    """As `_on_disk`."""
    lock = BucketLock(address_of(path), _this_process(), Progress(work, total=0, unit="").say)
    free = jax.process_index() != 0 or lock.acquire()

    def described() -> str:
        left = f" (if it has died, the same command takes over {lock.seconds:.0f} seconds from now)"
        return f"{_words(lock.holder, work)}{left if lock.seconds else ''}"

    try:
        yield free, described
    finally:
        if lock.is_locked:
            lock.release()


def _this_process() -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).astimezone().isoformat(sep=" ", timespec="seconds")
    return {"host": socket.gethostname(), "process": os.getpid(), "since": now}


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
        return _words(json.loads(holder.read_text(encoding="utf-8")), work)
    except (OSError, ValueError):  # it is just being written
        return _words({}, work)


def _words(holder: Mapping[str, Any], work: Work) -> str:
    try:
        host, process, since = (holder[name] for name in ("host", "process", "since"))
        return f"process {process} on host {host} has held it for its {work} since {since}"
    except KeyError:
        return f"another {work} has just begun there"
