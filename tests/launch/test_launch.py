"""Launch scripts: what they would run, as their own shells expand it."""

# pyright: reportAttributeAccessIssue=false

import os
from pathlib import Path
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

from castream_jax.runtime.processes import find_processes

LAUNCH = Path(__file__).parents[2] / "launch"
ARGUMENTS = ["configs/a b.py", "work dir", "--config.data.path=/data; rm x"]
TRAIN = ["-m", "castream_jax", "train", "--config", "configs/a b.py", "--workdir", "work dir"]


def dry_run(script: str, **environ: str) -> list[list[str]]:
    """The commands, word by word."""
    done = subprocess.run(
        ["bash", LAUNCH / script, *ARGUMENTS],
        env={"PATH": os.environ["PATH"], "DRY_RUN": "1", **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    return [shlex.split(line) for line in done.stdout.splitlines()]


def test_local_trains_then_evaluates_in_every_process():
    evaluate = [*TRAIN[:2], "evaluate", *TRAIN[3:]]
    several = ["--coordinator", "127.0.0.1:777", "--num-processes", "2", "--process-id"]
    assert dry_run("local.sh", PROCESSES="2", PORT="777") == [
        ["python", *command, *several, process, ARGUMENTS[2]] for command in (TRAIN, evaluate) for process in "01"
    ]
    assert dry_run("local.sh") == [["python", *command, ARGUMENTS[2]] for command in (TRAIN, evaluate)]


def test_slurm_starts_one_process_per_machine():
    assert dry_run("slurm.sbatch") == [["srun", "--kill-on-bad-exit=1", "python", *TRAIN, ARGUMENTS[2]]]
    lines = (LAUNCH / "slurm.sbatch").read_text().splitlines()
    options = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines if line.startswith("#SBATCH"))
    assert options["ntasks-per-node"] == "1"
    assert options["signal"] == "TERM@120"
    # sbatch reads options up to the first command only.
    first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first:])


def test_tpu_pod_runs_the_same_on_every_host():
    ((*gcloud, remote),) = dry_run("tpu_pod.sh", TPU_NAME="pod", ZONE="z1", FOLDER="my folder")
    assert gcloud == shlex.split("gcloud compute tpus tpu-vm ssh pod --zone z1 --worker=all --command")
    assert shlex.split(remote) == [
        "cd",
        "my folder",
        "&&",
        "CASTREAM_CLUSTER=tpu",
        ".venv/bin/python",
        *TRAIN,
        ARGUMENTS[2],
    ]


@pytest.mark.parametrize("script", ["local.sh", "slurm.sbatch", "tpu_pod.sh"])
def test_without_arguments_the_header_is_shown(script: str):
    done = subprocess.run(["bash", LAUNCH / script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "CONFIG WORKDIR [--config.field=value …]" in done.stderr
    assert "edit" in done.stderr.lower()


@pytest.mark.parametrize("script", ["local.sh", "slurm.sbatch", "tpu_pod.sh"])
def test_shellcheck_finds_nothing(script: str):
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed: pip install -r requirements-dev.txt")
    done = subprocess.run([shellcheck, LAUNCH / script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# The part of the schemas of JobSet v1alpha2, Job and Pod that the file uses; a list stands for a list of what is in it.
SCHEMA = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str},
    "spec": {
        "failurePolicy": {"maxRestarts": int},
        "replicatedJobs": [
            {
                "name": str,
                "replicas": int,
                "template": {
                    "spec": {
                        "parallelism": int,
                        "completions": int,
                        "completionMode": str,
                        "backoffLimit": int,
                        "template": {
                            "spec": {
                                "restartPolicy": str,
                                "terminationGracePeriodSeconds": int,
                                "nodeSelector": dict,
                                "containers": [
                                    {
                                        "name": str,
                                        "image": str,
                                        "command": [str],
                                        "args": [str],
                                        "env": [
                                            {"name": str, "value": str, "valueFrom": {"fieldRef": {"fieldPath": str}}}
                                        ],
                                        "resources": {"limits": dict},
                                        "volumeMounts": [{"name": str, "mountPath": str}],
                                    }
                                ],
                                "volumes": [
                                    {
                                        "name": str,
                                        "persistentVolumeClaim": {"claimName": str},
                                        "emptyDir": {"medium": str},
                                    }
                                ],
                            }
                        },
                    }
                },
            }
        ],
    },
}


def check(value, schema, where: str = "") -> None:
    if isinstance(schema, dict):
        assert isinstance(value, dict), where
        for key, inner in value.items():
            assert key in schema, f"{where}.{key} is no field"
            check(inner, schema[key], f"{where}.{key}")
    elif isinstance(schema, list):
        assert isinstance(value, list), where
        for inner in value:
            check(inner, schema[0], where)
    else:
        assert type(value) is schema, where


def test_jobset_has_the_fields_of_its_schema_and_its_pods_find_each_other():
    jobset = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    check(jobset, SCHEMA)
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (workers,) = jobset["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    assert job["completionMode"] == "Indexed"  # which is what sets JOB_COMPLETION_INDEX
    (container,) = job["template"]["spec"]["containers"]
    # What JobSet writes on every pod.
    annotations = {
        "metadata.annotations['jobset.sigs.k8s.io/jobset-name']": jobset["metadata"]["name"],
        "metadata.annotations['jobset.sigs.k8s.io/replicatedjob-name']": workers["name"],
    }
    environ = {
        variable["name"]: variable.get("value") or annotations[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        for variable in container["env"]
    }
    group = find_processes({**environ, "JOB_COMPLETION_INDEX": "1"})
    assert group.coordinator.startswith("castream-workers-0-0.castream:")
    assert group.count == job["parallelism"] == job["completions"]
    assert group.index == 1
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in job["template"]["spec"]["volumes"]}
