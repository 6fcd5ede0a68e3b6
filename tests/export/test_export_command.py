"""`castream export`: every format of a trained workdir holds the trained model, and says what it is."""

# pyright: reportAttributeAccessIssue=false

import json
from pathlib import Path
import shutil
import subprocess
import sys

import chex
from flax import nnx
import jax
import numpy as np
import pytest
import safetensors.numpy

import castream_jax as castream
from castream_jax.backbones import fingerprint
from castream_jax.cli import main
from castream_jax.experiment.config import stream_config
from castream_jax.runtime.atomic_files import write_atomically
from castream_jax.training import train

pytestmark = pytest.mark.slow  # all of one workdir, which takes ten seconds to train and evaluate


@pytest.fixture(scope="module")
def workdir(tiny_config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained, and evaluated on 359 images, under a plain and a class-specific stream beside the bundled trunk."""
    from castream_jax.evaluation import evaluate

    config = tiny_config(
        backbone={"weights": "digits"},
        train={"batch_size": 240},
        evaluation={"methods": ("attention",), "max_images": 8, "gallery": 0},
    )
    with config.unlocked():
        config.streams = {
            "ca": stream_config(),
            "late": stream_config(start_stage=2, class_specific=True, block="proj_ca", num_heads=2),
        }
    workdir = tmp_path_factory.mktemp("workdir") / "run"
    train(config, workdir)
    evaluate(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def exported(workdir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained export with its trunk."""
    out = tmp_path_factory.mktemp("export") / "model"
    assert main(["export", "--workdir", str(workdir), "--to", "pretrained", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def program(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stablehlo") / "model"
    assert main(["export", str(exported), "--to", "stablehlo", "--out", str(out)]) == 0
    return out


def only_sentence(capsys: pytest.CaptureFixture) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("castream:")]
    assert len(lines) == 1, lines
    return lines[0]


def pixels(batch: int) -> np.ndarray:
    return np.random.default_rng(batch).random((batch, 32, 32, 3), np.float32)


def trained_streams(workdir: Path) -> dict[str, np.ndarray]:
    """Parameters of the newest checkpoint, as Orbax gives them, without the code that exports."""
    import orbax.checkpoint as ocp

    newest = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name))
    with ocp.StandardCheckpointer() as checkpointer:
        params = checkpointer.restore(newest / "model")["params"]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(params)}


def test_a_pretrained_export_needs_nothing_else(workdir: Path, exported: Path):
    model, about = castream.load_pretrained(exported), castream.describe_pretrained(exported)
    trained = trained_streams(workdir)
    assert any(np.array_equal(leaf, model.heads.ca.cls_token[...]) for leaf in trained.values())
    assert any(np.array_equal(leaf, model.heads.late.projections[0].kernel[...]) for leaf in trained.values())
    assert model.images == about.images == castream.ImageSpec(32, "none", tuple("0123456789"))
    assert about.trunk_fingerprint == fingerprint(castream.load_backbone("cifar_resnet8", "digits"))
    assert about.config["backbone"]["name"] == "cifar_resnet8"


def test_the_card_has_the_metrics_of_this_very_model(workdir: Path, exported: Path, tmp_path: Path, capsys):
    summary = json.loads((workdir / "evaluation" / "summary.json").read_text())
    card = (exported / "README.md").read_text()
    assert summary["protocol"]["hash"] in card
    assert summary["trunk_fingerprint"] in card
    attention = next(entry for entry in summary["metrics"] if entry["head"] == "ca")
    assert f"{100 * attention['I']:.2f}" in card
    assert "castream_jax " + castream.__version__ in card
    # The same workdir with the evaluation of other parameters: no metrics rather than wrong ones.
    shutil.copytree(workdir, tmp_path / "run")
    run = json.loads((tmp_path / "run" / "evaluation" / "run.json").read_text())
    run["identity"]["heads"]["ca"] = "0" * 64
    write_atomically(tmp_path / "run" / "evaluation" / "run.json", json.dumps(run))
    out = tmp_path / "out"
    assert main(["export", "--workdir", str(tmp_path / "run"), "--to", "pretrained", "--out", str(out)]) == 0
    assert "the card has no metrics" in capsys.readouterr().err
    assert "were not evaluated" in (out / "README.md").read_text()
    assert castream.describe_pretrained(out).images.class_names == tuple("0123456789")  # of the data


def test_a_trunk_by_reference_is_verified(workdir: Path, exported: Path, tmp_path: Path, capsys):
    out = tmp_path / "small"
    command = ["export", "--workdir", str(workdir), "--to", "pretrained", "--trunk", "reference", "--out", str(out)]
    assert main(command) == 0
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "model.json", "streams"]
    chex.assert_trees_all_equal(castream.load_pretrained(out)(pixels(2)), castream.load_pretrained(exported)(pixels(2)))
    written = json.loads((out / "model.json").read_text())
    assert written["trunk"] == "digits"
    (out / "model.json").write_text(json.dumps(written | {"trunk_fingerprint": "0" * 64}))
    with pytest.raises(ValueError, match="digits of cifar_resnet8 on this machine are not the trunk"):
        castream.load_pretrained(out)
    other = castream.Model(
        castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0)), {"gap": castream.GlobalAveragePooling()}
    )
    for trunk, sentence in (("digits", "is not digits"), ("mine.pth", r"by published weights of cifar_resnet8 only")):
        with pytest.raises(ValueError, match=sentence):
            castream.save_pretrained(other, tmp_path / "other", trunk=trunk)
    assert not (tmp_path / "other").exists()


def test_safetensors_and_the_program_are_loaded_too(exported: Path, program: Path, tmp_path: Path):
    expected = castream.load_pretrained(exported)(pixels(2))
    assert main(["export", str(exported), "--to", "safetensors", "--out", str(tmp_path / "out")]) == 0
    for folder in (tmp_path / "out", program):
        chex.assert_trees_all_equal(castream.load_pretrained(folder)(pixels(2)), expected)
    names = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors").keys()
    assert {"backbone.conv1.kernel", "heads.ca.cls_token", "heads.late.attentions.0.key.kernel"} <= names
    damaged = (tmp_path / "out" / "model.safetensors").read_bytes()[:-100]
    (tmp_path / "out" / "model.safetensors").write_bytes(damaged)
    with pytest.raises(ValueError, match="truncated or corrupted"):
        castream.load_pretrained(tmp_path / "out")


# Runs the card's snippet in a Python that finds neither this package nor flax.
_ALONE = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("castream_jax", "flax", "orbax"):
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocked())
import numpy as np

for batch in (1, 3):
    pixels = np.load(f"pixels-{batch}.npy")
    exec(open("snippet.py").read())
    flat = {f"logits/{head}": value for head, value in outputs["logits"].items()}
    for stream, stages in outputs["attention"].items():
        flat |= {f"attention/{stream}/{stage}": value for stage, value in stages.items()}
    np.savez(f"outputs-{batch}.npz", **flat)
assert not {"castream_jax", "flax", "orbax"} & set(sys.modules)
print(program.platforms)
"""


def test_the_program_runs_without_this_package(program: Path, tmp_path: Path):
    snippet = (program / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert "jax.export.deserialize" in snippet
    (tmp_path / "snippet.py").write_text(snippet.replace('Path(".")', f"Path({str(program)!r})"))
    for batch in (1, 3):
        np.save(tmp_path / f"pixels-{batch}.npy", pixels(batch))
    run = subprocess.run([sys.executable, "-I", "-c", _ALONE], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "('cpu', 'cuda', 'tpu')"
    model = castream.load_pretrained(program)
    for batch in (1, 3):
        stages = model.backbone.stages(pixels(batch))
        query = model.predicted_class(stages)
        with np.load(tmp_path / f"outputs-{batch}.npz") as alone:
            assert len(alone.files) == 3 + 4 + 2
            for head, logits in model(pixels(batch)).items():
                # Compiled for batches of any size, it sums in another order; logits are of about 10 in size.
                np.testing.assert_allclose(alone[f"logits/{head}"], logits, rtol=1e-5, atol=1e-4)
            for stream, first in (("ca", 0), ("late", 2)):
                for stage, attention in enumerate(model.heads[stream](stages, query)[1], start=first):
                    given = alone[f"attention/{stream}/S{stage}"]
                    np.testing.assert_allclose(given, attention, rtol=1e-4, atol=1e-6)
                    np.testing.assert_allclose(given.sum((2, 3)), 1, rtol=1e-5)


def test_official_files_go_back_into_a_stream(exported: Path, tmp_path: Path, capsys):
    out = tmp_path / "official"
    assert main(["export", str(exported), "--to", "official", "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["ca.safetensors", "late.safetensors"]
    model = castream.load_pretrained(exported)
    arrays = safetensors.numpy.load_file(out / "ca.safetensors")
    assert list(arrays)[:1] == ["base.to_out.1.bias"]
    stream = castream.CrossAttentionStream(model.backbone.stage_dims, rngs=nnx.Rngs(5))
    castream.load_torch_stream(stream, arrays)
    chex.assert_trees_all_equal(nnx.to_pure_dict(nnx.state(stream)), nnx.to_pure_dict(nnx.state(model.heads.ca)))
    capsys.readouterr()
    assert main(["export", str(exported), "--to", "official", "--out", str(out)]) == 0  # replaces its own
    assert "held an earlier export, which this one replaced" in " ".join(capsys.readouterr().err.split())


def test_nobody_elses_files_are_replaced(exported: Path, tmp_path: Path, monkeypatch, capsys):
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    (out / "notes.md").write_text("mine")
    for format_ in ("pretrained", "official"):
        assert main(["export", str(exported), "--to", format_, "--out", str(out)]) == 2
        assert "holds what this export would not write" in only_sentence(capsys)
    assert (out / "notes.md").read_text() == "mine"
    # A failure half-way leaves the export that was there.
    (out / "notes.md").unlink()
    monkeypatch.setattr("castream_jax.exporting.formats.write_arrays", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["export", str(exported), "--to", "safetensors", "--out", str(out)])
    castream.load_pretrained(out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_exports_of_the_first_release_are_read(exported: Path, tmp_path: Path):
    out = tmp_path / "old"
    shutil.copytree(exported, out)
    fields = ("castream_jax", "backbone", "num_classes", "taps", "trunk_fingerprint", "heads")
    written = json.loads((out / "model.json").read_text())
    (out / "model.json").write_text(json.dumps({field: written[field] for field in fields}))
    chex.assert_trees_all_equal(castream.load_pretrained(out)(pixels(1)), castream.load_pretrained(exported)(pixels(1)))
    about = castream.describe_pretrained(out)
    assert (about.images, about.dtype) == (None, "float32")
    (out / "model.json").write_text(json.dumps(written | {"format": 3, "castream_jax": "9.0"}))
    with pytest.raises(ValueError, match=r"was written by castream_jax 9.0: upgrade castream_jax to read it"):
        castream.load_pretrained(out)


def test_a_bfloat16_trunk_stays_one(resnet8_weights: Path, tmp_path: Path):
    backbone = castream.load_backbone("cifar_resnet8", resnet8_weights, dtype="bfloat16")
    model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling()})
    castream.save_pretrained(model, tmp_path / "export")
    loaded = castream.load_pretrained(tmp_path / "export")
    assert loaded.backbone.dtype == "bfloat16"
    chex.assert_trees_all_equal(loaded(pixels(1)), model(pixels(1)))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--workdir", "{workdir}", "--to", "official", "--checkpoint", "best"], "No checkpoint in"),
        (["--workdir", "absent", "--to", "official"], "holds no experiment: run `castream train --config FILE"),
        (["absent", "--to", "official"], "absent holds no model: there is no model.json."),
        (["absent", "--to", "official", "--checkpoint", "best"], "--checkpoint is one of a --workdir"),
        (["absent", "--to", "stablehlo", "--trunk", "reference"], "--trunk reference goes with --to pretrained"),
        (
            ["absent", "--to", "official", "--config.seed=3"],
            "export takes no --config.seed=3: see castream export --help.",
        ),
        (["hf://nobody", "--to", "official"], "write hf://user/repository"),
    ],
)
def test_mistakes_are_one_sentence(workdir, tmp_path: Path, monkeypatch, capsys, options: list[str], sentence: str):
    monkeypatch.chdir(tmp_path)
    options = [option.replace("{workdir}", str(workdir)) for option in options]
    assert main(["export", *options, "--out", "out"]) == 2
    assert sentence in only_sentence(capsys)
    assert not list(tmp_path.iterdir())
