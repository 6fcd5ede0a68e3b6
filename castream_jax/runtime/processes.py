"""Several processes that work as one: who they are, where they meet, and what happens when one dies."""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import os
import sys
from typing import Literal

import jax

# Seconds without a sign of life after which a process counts as dead and the others are told.
HEARTBEAT_TIMEOUT = 60

PORT = 12355

# Parts of the messages with which collectives and the coordination service fail.
_PEER_FAILURES = ("Gloo ", "NCCL", "coordination service", "heartbeat", "Barrier ")

# Exit status of a process that ends because another one died.
PEER_LOST = 4


@dataclasses.dataclass(frozen=True)
class ProcessGroup:
    """The processes of one run: the arguments of `jax.distributed.initialize`.

    Attributes:
        coordinator: host:port at which process 0 can be reached.
        count: number of processes.
        index: which of them this is.
    """

    coordinator: str
    count: int
    index: int


def initialise_processes(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the processes of one run; does nothing for a run of one process. Must come before JAX is first used.

    Args:
        coordinator, num_processes, process_id: see `ProcessGroup`; by default as `find_processes` finds them.

    Raises:
        ValueError: if only some of the three are known.
        ConnectionError: if the others do not appear within five minutes.
    """
    group = find_processes(os.environ, coordinator, num_processes, process_id)
    if group is None:
        return
    try:
        if group == "tpu":
            jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT)
        else:
            # Deactivated, or JAX would give a Slurm task one device of those it sees.
            jax.distributed.initialize(
                group.coordinator,
                group.count,
                group.index,
                cluster_detection_method="deactivate",
                heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
            )
    except jax.errors.JaxRuntimeError as error:
        where = "" if group == "tpu" else f" at {group.coordinator}, as {group.index} of {group.count}"
        raise ConnectionError(f"The processes of this run did not find each other{where}: {error}") from error


@contextlib.contextmanager
def exit_when_peer_dies() -> Iterator[None]:
    """Around the work of one of several processes: when another one dies, says so and ends this one, with status 4.

    A collective that loses a peer fails at once where the network tells (gloo, a closed connection), else when the
    heartbeat stops, after which JAX itself aborts the process; it may do so first where process 0 died, which is where
    heartbeats meet. An orderly exit would wait for the dead.
    """
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1 or not comes_from_a_peer(error):
            raise
        reason = " ".join(str(error).split())[:160]
        print(
            f"castream: process {jax.process_index()} of {jax.process_count()} ends because another one has died or "
            f"cannot be reached ({reason}): see the others' output; the same command continues from the last "
            "checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(PEER_LOST)


def comes_from_a_peer(error: BaseException) -> bool:
    """Whether a failed collective or barrier is the error, or what it was raised from.

    JAX raises its own error for them, but a compiled function that is called again raises a ValueError, and its caller
    may turn that into an OSError about a checkpoint that was not written.
    """
    text = str(error)
    if isinstance(error, jax.errors.JaxRuntimeError) or any(part in text for part in _PEER_FAILURES):
        return True
    return error.__cause__ is not None and comes_from_a_peer(error.__cause__)


def find_processes(
    environ: Mapping[str, str],
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> ProcessGroup | Literal["tpu"] | None:
    """The processes that this one belongs to; None if it is alone.

    The first of these that applies:

    - arguments, each of which may be given by `CASTREAM_COORDINATOR`, `CASTREAM_NUM_PROCESSES`, `CASTREAM_PROCESS_ID`;
    - a TPU pod, whose metadata JAX reads itself: `CASTREAM_CLUSTER=tpu`, or several `TPU_WORKER_HOSTNAMES` (GKE);
    - a Slurm step of several tasks (`srun`);
    - pods of a Kubernetes JobSet: `JOBSET_NAME`, `REPLICATED_JOB_NAME`, `CASTREAM_NUM_PROCESSES` and, from Kubernetes
      itself, `JOB_COMPLETION_INDEX` (see `launch/gke_jobset.yaml`).

    Raises:
        ValueError: if only some of what describes a group is there, or it is not a number.
    """
    if environ.get("CASTREAM_CLUSTER") == "tpu" or "," in environ.get("TPU_WORKER_HOSTNAMES", ""):
        return "tpu"
    in_jobset = "JOBSET_NAME" in environ and coordinator is None and "CASTREAM_COORDINATOR" not in environ
    if in_jobset:
        name = environ["JOBSET_NAME"]
        coordinator = f"{name}-{environ.get('REPLICATED_JOB_NAME', 'workers')}-0-0.{name}:{PORT}"
    given = {
        "--coordinator": coordinator or environ.get("CASTREAM_COORDINATOR"),
        "--num-processes": _number(num_processes, environ, "CASTREAM_NUM_PROCESSES"),
        "--process-id": _number(process_id, environ, "JOB_COMPLETION_INDEX" if in_jobset else "CASTREAM_PROCESS_ID"),
    }
    missing = [name for name, value in given.items() if value is None]
    if not missing:
        return ProcessGroup(*given.values())  # pyright: ignore[reportArgumentType]
    if len(missing) < len(given):
        raise ValueError(
            f"A run of several processes needs --coordinator, --num-processes and --process-id (or "
            f"CASTREAM_COORDINATOR, CASTREAM_NUM_PROCESSES, CASTREAM_PROCESS_ID); unknown: {', '.join(missing)}."
        )
    if int(environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return ProcessGroup(
            f"{_first_host(environ['SLURM_STEP_NODELIST'])}:{PORT + int(environ['SLURM_JOB_ID']) % 10_000}",
            int(environ["SLURM_STEP_NUM_TASKS"]),
            int(environ["SLURM_PROCID"]),
        )
    return None


def _first_host(nodes: str) -> str:
    """The first host of Slurm's notation: `gpu[003-007,9],cpu1` begins with gpu003."""
    prefix, bracket, rest = nodes.partition("[")
    if not bracket or "," in prefix:
        return nodes.split(",")[0]
    numbers, _, suffix = rest.partition("]")
    return prefix + numbers.replace("-", ",").split(",")[0] + suffix.split(",")[0]


def _number(value: int | None, environ: Mapping[str, str], name: str) -> int | None:
    if value is not None or not environ.get(name):
        return value
    try:
        return int(environ[name])
    except ValueError as error:
        raise ValueError(f"{name} must be a number, got {environ[name]!r}.") from error
