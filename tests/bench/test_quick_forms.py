"""Every benchmark in small: each program runs with each of its options, and prints what it says it prints."""

from collections.abc import Mapping, Sequence
import importlib.util
import json
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

from flax import nnx
import numpy as np
from PIL import Image
import pytest

import castream_jax as castream
from castream_jax.backbones import save_torch_weights
from castream_jax.commands.bench import machine
from castream_jax.reporting.benchmarks import FIGURES, benchmarks_table
from castream_jax.stream_weights import torch_stream_state_dict

pytestmark = [pytest.mark.slow, pytest.mark.system]

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PROGRAMS = sorted(path.stem for path in BENCHMARKS.glob("*.py") if '__name__ == "__main__"' in path.read_text())

# Command lines, {inputs} being the folder of `inputs` and {out} an empty one; and what the printed JSON must hold: what
# is given counts beside --quick, and the shapes are those asked for. What PyTorch's sides add is there where PyTorch is
# installed.
COMMANDS: list[tuple[str, Mapping[str, Any]]] = [
    ("compilations.py --quick", {"compilations": {"load_backbone": 0, "stream": 1, "create_backbone": 1}}),
    (
        "data_pipeline.py --quick --path {inputs}/imagenet --split train --images 4 --rounds 2 --threads 2",
        {"evaluation (squash), draft": {"deviation": {"share_of_images": 1.0}}},
    ),
    (
        "data_pipeline.py --quick --step cifar_resnet8 --steps 3 --step-batch 2 --workers 1",
        {"backbone": "cifar_resnet8", "batch": 2, "workers": 1},
    ),
    ("deviation.py --quick", {"torchvision": {}}),
    ("deviation.py --quick --convolution sums", {"torchvision": {}}),
    ("evaluation.py --quick --json {out}/report.json", {"backbone": "cifar_resnet8", "images": {"ours": 8}}),
    (
        "evaluation.py --backbone cifar_resnet8 --weights {inputs}/trunk.safetensors --stream {inputs}/stream.npz "
        "--data {inputs}/folder --methods gradcam --images 2 --size 24 --group 2 --chunk 8 --dtype bfloat16 "
        "--pytorch-images 1 --part-images 1 --quick --json {out}/report.json",
        {"methods": ["gradcam"], "images": {"ours": 2}, "size": 24, "group": 2, "chunk": 8, "dtype": "bfloat16"},
    ),
    (
        "explain.py --quick --backbone cifar_resnet8 --image {inputs}/photo.png --starts 1",
        {"backbone": "cifar_resnet8", "many": {"images": 4}},
    ),
    ("forward.py --quick", {"batch": 2, "dtype": "float32"}),
    ("forward.py --quick --backbones cifar_resnet8 --dtype tensorfloat32", {"dtype": "tensorfloat32"}),
    (
        "forward.py --quick --unprepared --backbones cifar_resnet8,cifar_resnet20 --batch 3 --size 24 --dtype bfloat16 "
        "--rounds 2",
        {"backbones": {"cifar_resnet8": {}, "cifar_resnet20": {}}, "batch": 3, "size": 24, "dtype": "bfloat16"},
    ),
    (
        "imported_networks.py --quick --networks resnet10t@64 --batch 1 --rounds 1 --json {out}/report.json",
        {"networks": {"resnet10t@64": {"image_size": 64, "pooled": "average", "maps": 5}}, "batch": 1},
    ),
    (
        "interruptions.py --quick --truncate --seed 1 --workdir {out} --config.train.checkpoint_every=6",
        {"signal": "KILL", "truncated": 1, "passed_over": 1, "same_bits": True, "same_logs": True},
    ),
    (
        "interruptions.py --quick --signal TERM --kills 2 --workdir {out} --config {inputs}/training.py",
        {"signal": "TERM", "kills": 2, "same_bits": True, "same_logs": True},
    ),
    ("loading.py --quick --backbone cifar_resnet20", {"backbone": "cifar_resnet20"}),
    (
        "methods.py --quick --backbone cifar_resnet8 --images 1 --methods gradcam,scorecam --metrics AD,I --rounds 2",
        {"backbone": "cifar_resnet8", "images": 1, "methods": {"gradcam": {}, "scorecam": {}}, "metrics": {"I": {}}},
    ),
    (
        "roofline.py --quick --backbones cifar_resnet20 --trained cifar_resnet8 --batch 2 --size 24 --rounds 2",
        {
            "programs": {"forward pass, cifar_resnet20": {}, "training step of one stream, cifar_resnet8": {}},
            "batch": 2,
            "size": 24,
        },
    ),
    (
        "other_libraries.py --quick --images 2 --json {out}/report.json",
        {"images": 2},
    ),
    ("scorecam_channels.py --quick --channels 2,4 --images 1", {"images": 1, "heads": {"gap": {}, "ca": {}}}),
    ("train_step.py --quick", {"backbone": "cifar_resnet8", "dtype": "float32"}),
    (
        "train_step.py --quick --backbone cifar_resnet8 --batch 4 --size 24 --dtype bfloat16 --rounds 2",
        {"backbone": "cifar_resnet8", "batch": 4, "size": 24, "dtype": "bfloat16"},
    ),
    ("trunk_precision.py --quick --images 2", {"images": 2, "emulated": ["tensorfloat32", "three passes"]}),
]

# What programs cannot do without.
NEEDED = {"imported_networks": ("torch", "torchax", "timm"), "other_libraries": ("torch", "torchvision")}

# Programs that print Markdown, with some of it, and write their JSON to a file.
MARKDOWN = {
    "evaluation": "| part, alone | forward passes per image |",
    "imported_networks": "| network | images | pooled | maps | logits |",
    "other_libraries": "| library | metric | its value |",
}

# Options of each program, with their default and their choices: what its parser has when it comes to reading the
# command line.
LIST_OPTIONS = """
import argparse, json, runpy, sys

class Parsed(BaseException):
    pass

def stop(parser, *arguments):
    actions = [action for action in parser._actions if action.dest != "help"]
    raise Parsed({a.option_strings[-1]: [a.default, *(a.choices or ())] for a in actions})

argparse.ArgumentParser.parse_known_args = stop
folder, *programs = sys.argv[1:]
sys.path.insert(0, folder)
options = {}
for program in programs:
    try:
        runpy.run_path(f"{folder}/{program}.py", run_name="__main__")
    except Parsed as parsed:
        options[program] = parsed.args[0]
print(json.dumps(options))
"""


@pytest.fixture(scope="module")
def inputs(once) -> Path:
    """A folder with what options name."""
    return once("inputs-of-benchmarks", write_inputs)


def write_inputs(folder: Path) -> None:
    """Trees of images, a photograph, weights of a trunk and of a stream, a config."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (500, 600, 3), np.uint8)
    photograph = Image.fromarray(pixels)
    photograph.resize((40, 30)).save(folder / "photo.png")
    for name, image in (("imagenet/train/n01440764", photograph), ("folder/one", photograph.resize((30, 40)))):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            image.save(folder / name / f"{number}.JPEG")
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    save_torch_weights(backbone, folder / "trunk.safetensors")
    stream = castream.CrossAttentionStream(backbone.stage_dims, rngs=nnx.Rngs(0))
    np.savez(folder / "stream.npz", **torch_stream_state_dict(stream))
    (folder / "training.py").write_text("from castream_jax.experiment.quickstart import get_config\n")


def run(command: str) -> subprocess.CompletedProcess:
    program, *options = command.split()
    # One that compiles with PyTorch, too, is enough: it takes a minute.
    environment = os.environ | ({"TORCHDYNAMO_DISABLE": "1"} if program != "forward.py" else {})
    if program == "deviation.py":  # of the programs that users run
        environment |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "XLA_FLAGS": ""}
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / program), *options], env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(("command", "expected"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_runs(command: str, expected: Mapping[str, Any], inputs, tmp_path: Path, request):
    if command.startswith(("trunk_precision", "deviation")):
        request.getfixturevalue("shared")
    for package in NEEDED.get(command.partition(".")[0], ()):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    done = run(command.format(inputs=inputs, out=tmp_path))
    assert done.returncode == 0, done.stderr
    text = done.stdout
    for program, heading in MARKDOWN.items():
        if command.startswith(program):
            assert heading in text
            text = (tmp_path / "report.json").read_text()
    report = json.loads(text)
    assert contains(report, expected)
    assert "missed" not in report
    program = command.split(".")[0]
    if program == "train_step":
        assert report["peak_bytes"]["step"] > report["peak_bytes"]["forward"]
    if "--step " not in command:  # which `castream bench` does not run
        assert {figure.path[0] for figure in FIGURES.get(program, ())} <= report.keys()
        assert benchmarks_table({"machine": machine(), "quick": True, "results": {program: report}})


def test_a_program_that_misses_its_bar_prints_what_it_found(tmp_path: Path):
    command = f"interruptions.py --quick --config.train.checkpoint_every=1000 --workdir {tmp_path}"  # nowhere to stop
    done = run(command)
    missed = "run 1 ended by itself, with status 0: if 0, give it more epochs"
    assert (done.returncode, done.stderr) == (1, f"Missed: {missed}.\n")
    assert contains(json.loads(done.stdout), {"kills": 0, "missed": [missed]})


def test_products_that_are_not_float32_are_found(shared):
    """TF32 is what a GPU multiplies float32 by, unless told otherwise."""
    done = run("deviation.py --quick --convolution tensorfloat32")
    assert (done.returncode, done.stderr.split(":")[0]) == (1, "Missed")
    missed = json.loads(done.stdout)["missed"]
    for name in (
        "logits of official code",
        "gradcam maps of official code",
        "AD of official",
        "resnet18 logits of torch",
    ):
        assert any(one.startswith(name) for one in missed), missed


def test_what_a_report_contains():
    report = {"a": 1, "b": {"c": 2, "d": 3}}
    assert contains(report, {"b": {"c": 2}})
    assert not contains(report, {"b": {"c": 3}})
    assert not contains(report, {"b": {"e": {}}})


def contains(found: Any, expected: Any) -> bool:
    """Whether all that is expected is there, in dictionaries within dictionaries too."""
    if not isinstance(expected, Mapping):
        return found == expected
    return all(key in found and contains(found[key], value) for key, value in expected.items())


def test_every_option_is_run():
    command = [sys.executable, "-c", LIST_OPTIONS, str(BENCHMARKS), *PROGRAMS]
    options = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    assert sorted(options) == PROGRAMS
    assert all("--quick" in of_program for of_program in options.values())
    assert not left_out(options, [command for command, _ in COMMANDS])


def test_an_option_that_is_not_run_is_found():
    options = {"forward": {"--batch": [16], "--dtype": ["float32", "float32", "bfloat16"]}, "loading": {}}
    commands = ["forward.py --dtype bfloat16", "evaluation.py --batch 2 --dtype float32"]
    assert left_out(options, commands) == ["forward.py --batch", "forward.py --dtype float32", "loading.py"]
    assert left_out(options, [*commands, "forward.py --batch 2"]) == ["loading.py"]


def left_out(options: Mapping[str, Mapping[str, Sequence[Any]]], commands: Sequence[str]) -> list[str]:
    """Programs, options and choices that occur in no command line; a default does where its option is not given."""
    missing = []
    for program, of_program in options.items():
        words = [command.split()[1:] for command in commands if command.startswith(f"{program}.py")]
        if not words:
            missing.append(f"{program}.py")
        for option, (default, *choices) in of_program.items():
            if not any(option in line for line in words):
                missing.append(f"{program}.py {option}")
            used = {line[line.index(option) + 1] if option in line else default for line in words if choices}
            missing += [f"{program}.py {option} {choice}" for choice in choices if choice not in used]
    return missing
