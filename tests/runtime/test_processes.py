"""Which processes belong together, from flags or from what Slurm, Kubernetes and TPU pods set."""

import jax
import pytest

from castream_jax.runtime.processes import ProcessGroup, comes_from_a_peer, find_processes


def test_a_process_alone():
    assert find_processes({}) is None
    assert (
        find_processes({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}) is None
    )  # salloc without srun
    assert find_processes({"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) is None
    assert find_processes({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}) is None


def test_flags_and_variables_name_a_group():
    group = ProcessGroup("10.0.0.1:999", 4, 0)
    assert find_processes({}, "10.0.0.1:999", 4, 0) == group
    environ = {"CASTREAM_COORDINATOR": "10.0.0.1:999", "CASTREAM_NUM_PROCESSES": "4", "CASTREAM_PROCESS_ID": "0"}
    assert find_processes(environ) == group
    assert find_processes(environ, process_id=2) == ProcessGroup("10.0.0.1:999", 4, 2)
    with pytest.raises(ValueError, match="unknown: --num-processes, --process-id"):
        find_processes({}, "10.0.0.1:999")
    with pytest.raises(ValueError, match="CASTREAM_PROCESS_ID must be a number, got 'two'"):
        find_processes({**environ, "CASTREAM_PROCESS_ID": "two"})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu3", "gpu3"),
        ("gpu3,cpu1", "gpu3"),
        ("gpu[003-007,9],cpu1", "gpu003"),
        ("gpu[7,9]", "gpu7"),
        ("rack1-[2-3]-ib", "rack1-2-ib"),
        ("login,gpu[1-2]", "login"),
    ],
)
def test_slurm_steps_meet_at_their_first_host(nodes: str, first: str):
    environ = {"SLURM_JOB_ID": "40012", "SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_NODELIST": nodes, "SLURM_PROCID": "2"}
    assert find_processes(environ) == ProcessGroup(f"{first}:12367", 3, 2)


def test_pods_of_a_jobset_meet_at_their_first_pod():
    environ = {
        "JOBSET_NAME": "castream",
        "REPLICATED_JOB_NAME": "workers",
        "CASTREAM_NUM_PROCESSES": "2",
        "JOB_COMPLETION_INDEX": "1",
    }
    assert find_processes(environ) == ProcessGroup("castream-workers-0-0.castream:12355", 2, 1)
    del environ["CASTREAM_NUM_PROCESSES"]
    with pytest.raises(ValueError, match="unknown: --num-processes"):
        find_processes(environ)


def test_tpu_pods_are_left_to_jax():
    assert find_processes({"CASTREAM_CLUSTER": "tpu"}) == "tpu"
    assert find_processes({"TPU_WORKER_HOSTNAMES": "host-0,host-1", "TPU_WORKER_ID": "1"}) == "tpu"


def test_what_a_dead_peer_causes_is_told_from_other_errors():
    lost = ValueError("UNKNOWN: Gloo AllGather failed: Read error [127.0.0.1]:13195: Connection reset by peer")
    unwritten = OSError("Checkpoint 8 could not be written")
    unwritten.__cause__ = lost
    assert comes_from_a_peer(lost)
    assert comes_from_a_peer(unwritten)
    assert comes_from_a_peer(jax.errors.JaxRuntimeError("INTERNAL"))
    full = OSError("Checkpoint 8 could not be written")
    full.__cause__ = ValueError("RESOURCE_EXHAUSTED: No space left on device")
    assert not comes_from_a_peer(full)
