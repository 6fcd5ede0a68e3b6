"""The command that a report gives measures what the report shows."""

import json
import shlex

from castream_jax.experiment.config import base_config, override
from castream_jax.reporting.reproducing import evaluate_command

SUMMARY = {
    "metrics": [],
    "protocol": {"name": "rise"},
    "reference_method": "gradcam",
    "checkpoint": {"which": "best"},
    "sanity_images": 50,
}


def command(methods: list[str], **config: object) -> str:
    identity = {"methods": methods, "max_images": 100, "curves": True, "data": {"test_split": "val", "seed": 0}}
    return evaluate_command(SUMMARY, {"identity": identity}, json.loads(base_config().to_json()) | config, "my run")


def test_the_command_gives_what_differs_from_the_config_of_the_training():
    program, name, *arguments = shlex.split(command(["gradcam", "random", "centre", "ones"]))
    assert (program, name, arguments[:2]) == ("castream", "evaluate", ["--workdir", "my run"])
    config, expected = override(base_config(), arguments[2:]), base_config()
    expected.evaluation.update(methods=("gradcam",), reference_method="gradcam", protocol="rise", max_images=100)
    expected.evaluation.checkpoint = "best"
    expected.data.test_split = "val"
    assert json.loads(config.to_json()) == json.loads(expected.to_json())


def test_a_baseline_that_was_asked_for_alone_is_one_of_the_methods():
    assert "--config.evaluation.methods=gradcam,random --config.evaluation.baselines=False" in command(
        ["gradcam", "random"]
    )


def test_an_own_method_needs_its_file_unless_the_workdir_has_it():
    assert command(["energy", "gradcam"]).endswith(" --import FILE")
    assert "--import" not in command(["energy", "gradcam"], imports=["imports/energy.py"])
    assert "--import" not in command(["inverted-gradcam", "attention:2"])
