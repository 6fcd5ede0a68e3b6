"""The command line: each mistake is one sentence on stderr, exit status 2, and nothing is lost."""

import io
from pathlib import Path
import shlex
import subprocess
import sys

import chex
from flax import nnx
import numpy as np
from PIL import Image
import pytest
import safetensors.numpy

import castream_jax as castream
from castream_jax.backbones import fingerprint, save_torch_weights
from castream_jax.cli import COMMANDS, main
from castream_jax.experiment.config import open_config, override
from castream_jax.version import __version__
from castream_jax.weights.files import read_weights

ROOT = Path(__file__).parent.parent
CONFIG = str(ROOT / "configs" / "cifar10" / "resnet20.py")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Ten classes of two images, in train and test."""
    for split in ("train", "test"):
        for label in range(10):
            folder = tmp_path / "images" / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (32, 32), (20 * label, 100, 50 * number)).save(folder / f"{number}.png")
    return tmp_path / "images"


def train(images: Path, workdir: Path, weights: Path | str, *overrides: str) -> int:
    fields = [f"--config.data.path={images}", f"--config.backbone.weights={weights}"]
    fields += ["--config.backbone.name=cifar_resnet8", "--config.train.batch_size=4", "--config.train.epochs=1"]
    return main(["train", "--config", CONFIG, "--workdir", str(workdir), *fields, *overrides])


def only_sentence(capsys: pytest.CaptureFixture) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("castream:")]
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("--config.train.epoch=3", "did you mean --config.train.epochs=…?"),
        ("--config.nonsense=3", "The config has no field to set by '--config.nonsense=3'"),
        ("--config.train.epochs=many", "--config.train.epochs takes a whole number, got 'many'"),
        ("--epochs=3", "The config has no field to set by '--epochs=3': did you mean --config.train.epochs=…?"),
        ("--config.train.batch_size=6", "A batch of 6 images does not split over 4 devices: use 4 or 8."),
        ("--config.data.path=/absent/data", "'/absent/data/train' does not exist"),
        ("--config.data.source=imagenets", "unknown data source 'imagenets'; did you mean 'imagenet'?"),
        ("--config.backbone.weights=/absent/w.pth", "There is no weight file /absent/w.pth"),
        ("--config.backbone.name=cifar_resnet20", "These weights are not those of a 10-class cifar_resnet20. missing:"),
        ("--config.backbone.name=resnet", "Unknown backbone 'resnet': did you mean resnet50"),
        ("--config.streams.ca.start_stage=7", "--config.streams.ca.start_stage must be one of 0 … 3, got 7."),
        (
            "--config.backbone.weights=https://a.org/w.pth",
            "https://a.org/w.pth is an address, and weights are read from",
        ),
        ("--config.imports=absent.py", "There is no Python file"),
    ],
)
def test_mistakes_are_told_in_one_sentence(images, tmp_path, resnet8_weights, capsys, override: str, sentence: str):
    assert train(images, tmp_path / "run", resnet8_weights, override) == 2
    assert sentence in only_sentence(capsys)
    assert not (tmp_path / "run").exists()


def test_empty_class_folders_are_named(images, tmp_path, resnet8_weights, capsys):
    for file in (images / "train" / "class3").iterdir():
        file.unlink()
    assert train(images, tmp_path / "run", resnet8_weights) == 2
    assert "class3" in only_sentence(capsys)


@pytest.mark.slow
def test_an_unreadable_image_is_named(images, tmp_path, resnet8_weights, capsys):
    broken = images / "train" / "class3" / "0.png"
    broken.write_bytes(broken.read_bytes()[:40])
    assert train(images, tmp_path / "run", resnet8_weights) == 2
    assert str(broken) in only_sentence(capsys)


def test_truncated_weights_are_named(images, tmp_path, resnet8_weights, capsys):
    part = tmp_path / "part.safetensors"
    part.write_bytes(resnet8_weights.read_bytes()[:5000])
    assert train(images, tmp_path / "run", part) == 2
    assert f"{part} is truncated, corrupted" in only_sentence(capsys)


@pytest.mark.slow
def test_train_evaluate_report(images, tmp_path, resnet8_weights, capsys):
    workdir = tmp_path / "run"
    assert train(images, workdir, resnet8_weights) == 0
    assert capsys.readouterr().out.strip() == str(workdir)
    assert main(["evaluate", "--workdir", str(workdir), "--config.evaluation.batch_size=12"]) == 0
    output = capsys.readouterr().out
    assert "Grad-CAM" in output
    assert output.strip().endswith(str(workdir / "report" / "index.html"))
    assert main(["report", "--workdir", str(workdir)]) == 0
    assert (workdir / "report" / "index.html").stat().st_size > 10_000


@pytest.mark.usefixtures("unchecked_calls")
def test_a_field_that_the_backbone_refuses_is_named_as_it_is_set(images, tmp_path, resnet8_weights, capsys):
    seven = tmp_path / "seven.safetensors"
    save_torch_weights(castream.create_backbone("cifar_resnet8", 7, rngs=nnx.Rngs(0)), seven)
    for weights, fields, sentence in (
        (
            resnet8_weights,
            ["dtype=float64"],
            "--config.backbone.dtype must be one of float32, tensorfloat32, bfloat16 for cifar_resnet8, got 'float64'.",
        ),
        (resnet8_weights, ["taps=layer4"], "--config.backbone.taps must be 'official', 'stages' or numbers of"),
        (seven, [], "Set --config.backbone.num_classes=7; or fine-tune first, with --config.train.target='backbone'"),
    ):
        assert train(images, tmp_path / "run", weights, *(f"--config.backbone.{field}" for field in fields)) == 2
        assert sentence in only_sentence(capsys)
    assert train(images, tmp_path / "run", seven, "--config.train.target=backbone") == 2
    sentence = "Set --config.backbone.num_classes=7, or --config.backbone.new_classifier=True to fine-tune"
    assert sentence in only_sentence(capsys)


def test_a_home_folder_is_found_wherever_a_path_is_given(tmp_path, resnet8_weights, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.safetensors").write_bytes(resnet8_weights.read_bytes())
    assert main(["convert", "~/w.safetensors", "--arch=cifar_resnet8", "--out=~/out"]) == 0
    assert (tmp_path / "out" / "trunk.safetensors").is_file()
    castream.load_backbone("cifar_resnet8", "~/out")
    config = override(open_config(CONFIG), ["--config.data.path=~/data", "--config.backbone.weights=~/w.pth"])
    assert (config.data.path, config.backbone.weights) == (f"{tmp_path}/data", f"{tmp_path}/w.pth")


@pytest.mark.system
def test_who_reads_the_table_may_stop():
    command = f"set -o pipefail; {shlex.quote(sys.executable)} -m castream_jax models | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("| ")
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_without_a_character_shows_another(encoding: str, monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", output)
    assert main(["protocol", "list"]) == 0
    text = output.buffer.getvalue().decode(encoding)
    assert f"| `castream` | `360fb410b49d` | {'–' if encoding == 'utf-8' else '?'} |" in text


def test_a_closed_stdout_is_no_mistake(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # as Python starts under >&-
    assert main(["protocol", "list"]) == 0


def test_divergence_has_its_own_status(images, tmp_path, resnet8_weights, capsys):
    assert train(images, tmp_path / "run", resnet8_weights, "--config.optimizer.learning_rate=1e30") == 3
    assert "lower --config.optimizer.learning_rate" in only_sentence(capsys)


def test_a_report_before_an_evaluation_says_what_to_do(tmp_path, capsys):
    assert main(["report", "--workdir", str(tmp_path)]) == 2
    assert "castream evaluate" in only_sentence(capsys)


@pytest.mark.parametrize("out", ["new/eight.safetensors", "folder"])
def test_convert_writes_checked_safetensors(tmp_path, resnet8_weights, capsys, out: str):
    weights = read_weights(resnet8_weights)
    source = tmp_path / "source.npz"
    np.savez(source, **weights, **{"bn1.num_batches_tracked": np.array(3)})
    assert main(["convert", str(source), "--arch", "cifar_resnet8", "--out", str(tmp_path / out)]) == 0
    path, trunk = capsys.readouterr().out.splitlines()
    chex.assert_trees_all_equal(safetensors.numpy.load_file(path), weights)
    assert trunk == f"backbone fingerprint {fingerprint(castream.load_backbone('cifar_resnet8', tmp_path / out))}"
    assert [file.name for file in Path(path).parent.iterdir()] == [Path(path).name]


def test_convert_knows_published_and_bundled_names(tmp_path, capsys):
    assert main(["convert", "digits", "--arch", "cifar_resnet8", "--out", str(tmp_path / "a.safetensors")]) == 0
    assert fingerprint(castream.load_backbone("cifar_resnet8", "digits")) in capsys.readouterr().out
    assert main(["convert", "imagenet1k_v2", "--arch", "resnet18", "--out", str(tmp_path)]) == 2
    assert "No weights 'imagenet1k_v2' of resnet18 are published: did you mean imagenet1k_v1" in only_sentence(capsys)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"--arch": "resnet"}, "Unknown backbone 'resnet': did you mean resnet50"),
        ({"--arch": "cifar_resnet20"}, "not those of a 10-class cifar_resnet20. missing: layer1.1.bn1.bias"),
        ({"--num-classes": "7"}, "linear.weight is [10, 64], should be [7, 64]. Give --num-classes=10."),
        ({"--out": "eight.pth"}, "eight.pth: convert writes safetensors"),
        ({"--config.seed": "3"}, "convert takes no --config.seed: see castream convert --help."),
    ],
)
def test_convert_tells_mistakes_in_one_sentence(tmp_path, resnet8_weights, monkeypatch, capsys, change, sentence):
    monkeypatch.chdir(tmp_path)
    options = {"--arch": "cifar_resnet8", "--out": "out"} | change
    assert main(["convert", str(resnet8_weights), *(word for option in options.items() for word in option)]) == 2
    assert sentence in only_sentence(capsys)
    assert not list(tmp_path.iterdir())


def test_convert_leaves_an_exported_model_alone(small_model, tmp_path, resnet8_weights, capsys):
    castream.save_pretrained(small_model, tmp_path / "export")
    assert main(["convert", str(resnet8_weights), "--arch", "cifar_resnet8", "--out", str(tmp_path / "export")]) == 2
    assert "holds an exported model" in only_sentence(capsys)
    castream.load_pretrained(tmp_path / "export")


# `import` is a word of Python's: its module is `import_network`.
NAMES = [module.__name__.rsplit(".", 1)[-1].removesuffix("_network") for module in COMMANDS]


@pytest.mark.parametrize("command", [[], *([name] for name in NAMES)])
def test_every_command_explains_itself(command: list[str], capsys):
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--help"])
    assert capsys.readouterr().out.startswith(" ".join(["usage: castream", *command]))


def test_every_module_of_commands_is_a_command():
    modules = {path.stem.removesuffix("_network") for path in (ROOT / "castream_jax" / "commands").glob("*.py")}
    assert modules - {"__init__", "start", "completion", "mistakes", "named_lists", "result_console"} == set(NAMES)


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"castream_jax {__version__}\n"


@pytest.mark.parametrize("path", sorted(str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*/*.py")))
def test_every_config_opens(path: str):
    config = open_config(ROOT / path)
    assert config.is_locked
    assert config.name != "experiment"
