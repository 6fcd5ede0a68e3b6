"""Whole-dataset evaluation: nothing lost, nothing counted twice, the same on any number of devices."""

import importlib
import json
from pathlib import Path

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest

import castream_jax as castream
from castream_jax.backbones import save_torch_weights
from castream_jax.data import open_source
from castream_jax.evaluation import evaluate
from castream_jax.evaluation.evaluate import evenly_spaced
from castream_jax.parallel import data_mesh
from castream_jax.training import train
from castream_jax.training.restore import restore_model

# The package exports the function under the module's name.
evaluate_module = importlib.import_module("castream_jax.evaluation.evaluate")


@pytest.fixture
def trained(tiny_config, tmp_path: Path):
    config = tiny_config()
    return config, train(config, tmp_path / "run")


def test_rows_and_summary_equal_the_python_api(trained):
    config, workdir = trained
    summary = evaluate(config, workdir)
    rows = pq.read_table(workdir / "evaluation" / "rows.parquet").to_pylist()
    assert json.loads((workdir / "evaluation" / "summary.json").read_text()) == summary
    assert len(rows) == 50 * 3  # Grad-CAM under two heads, raw attention of one; the last batch holds 10 of 40
    assert len({(row["index"], row["head"], row["method"]) for row in rows}) == len(rows)

    source = open_source(config.data, "test")
    model = restore_model(config, workdir)
    labels = np.array([source[i]["label"] for i in range(len(source))])
    pixels = np.stack([source[i]["pixels"] for i in range(len(source))]).astype(np.float32) / 255
    for head, logits in model(pixels).items():
        assert summary["heads"][head]["accuracy"] == pytest.approx(np.mean(logits.argmax(-1) == labels))

    chosen = evenly_spaced(len(source), 50)
    assert sorted({row["index"] for row in rows}) == chosen.tolist()
    maps = castream.attribute(model, pixels[chosen], labels[chosen], methods=("gradcam", "attention"))
    scores = castream.score(model, pixels[chosen], labels[chosen], maps)
    for row in rows:
        expected = scores[row["head"], row["method"]]
        place = int(np.flatnonzero(chosen == row["index"])[0])
        assert row["label"] == labels[row["index"]]
        assert row["name"] == source.name(row["index"])
        for metric in ("AD", "AG", "AI", "I", "D", "p", "o"):
            # 1e-4: batches of 40 and of 50 are convolved in another order, and AG divides by 1 - p.
            assert row[metric] == pytest.approx(float(expected[metric][place]), abs=1e-4), metric
    for entry in summary["metrics"]:
        group = [row for row in rows if (row["head"], row["method"]) == (entry["head"], entry["method"])]
        assert entry["AD"] == pytest.approx(np.mean([row["AD"] for row in group]))


def test_padding_is_not_counted_as_correct(tiny_config, tmp_path: Path):
    """A backbone that always says class 0 would be right about every row of padding, whose label is 0."""
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    backbone.linear.bias[...] = jnp.array([1e6] + [0.0] * 9)
    save_torch_weights(backbone, tmp_path / "zero.safetensors")
    config = tiny_config(backbone={"weights": str(tmp_path / "zero.safetensors")}, optimizer={"learning_rate": 0.0})
    summary = evaluate(config, train(config, tmp_path / "run"))
    source = open_source(config.data, "test")
    share = np.mean([source[i]["label"] == 0 for i in range(len(source))])
    assert len(source) % config.evaluation.batch_size
    for head in summary["heads"].values():
        assert head["accuracy"] == pytest.approx(share)


def test_the_number_of_devices_changes_nothing(trained):
    config, workdir = trained
    totals = {}
    for devices in (1, 2, 4):
        totals[devices] = evaluate(config, workdir, mesh=data_mesh(jax.devices()[:devices]))
    for devices in (2, 4):
        assert totals[devices]["heads"] == totals[1]["heads"]
        for ours, reference in zip(totals[devices]["metrics"], totals[1]["metrics"], strict=True):
            assert ours == pytest.approx(reference, abs=1e-6)


def test_batches_are_read_as_they_are_needed(trained, monkeypatch):
    """Never more than two batches ahead of the results: the data set need not fit into memory."""
    config, workdir = trained
    read, taken, ahead = [], [], []
    original_loader, original_get = evaluate_module.eval_loader, jax.device_get

    def counting_loader(*arguments, **options):
        for batch in original_loader(*arguments, **options):
            read.append(batch["index"])
            ahead.append(len(read) - len(taken))
            yield batch

    def counting_get(tree):
        taken.append(tree)
        return original_get(tree)

    monkeypatch.setattr(evaluate_module, "eval_loader", counting_loader)
    monkeypatch.setattr(evaluate_module.jax, "device_get", counting_get)
    evaluate(config, workdir)
    assert len(read) == 9 + 2  # 359 and 50 images in batches of 40
    assert max(ahead) <= 2


def test_gallery_holds_what_the_report_shows(trained):
    config, workdir = trained
    evaluate(config, workdir)
    with np.load(workdir / "evaluation" / "gallery.npz") as gallery:
        assert gallery["pixels"].shape == (4, 32, 32, 3)
        assert gallery["box"].shape == (4, 4)
        for name in ("map/gap/gradcam", "map/ca/gradcam", "map/ca/attention"):
            assert gallery[name].shape == (4, 8, 8)
        assert gallery["prediction/ca"].shape == (4,)


@pytest.mark.parametrize(("length", "count", "expected"), [(10, 3, [0, 3, 6]), (4, 0, [0, 1, 2, 3]), (2, 5, [0, 1])])
def test_evenly_spaced(length: int, count: int, expected: list[int]):
    assert evenly_spaced(length, count).tolist() == expected


def test_a_batch_that_does_not_split_is_refused(trained):
    config, workdir = trained
    config.evaluation.batch_size = 7
    with pytest.raises(ValueError, match="A batch of 7 images does not split over 4 devices: use 4 or 8"):
        evaluate(config, workdir)


@pytest.mark.slow
def test_published_resnet20_on_cifar10(shared: Path, tmp_path: Path, tiny_config, golden_model):
    """81.03 % on the 10,000 JPEG test images, what PyTorch gives on the same files."""
    import tarfile

    from flax import nnx

    from castream_jax.data import ImageFolder, eval_loader
    from castream_jax.evaluation.explain import predict_batch

    with tarfile.open(shared / "data" / "cifar10_jpeg.tar.xz") as archive:
        archive.extractall(tmp_path, [m for m in archive if m.name.startswith("test")], filter="data")
    source = ImageFolder(tmp_path, "test")
    assert len(source) == 10_000
    graphdef, state = nnx.split(golden_model)
    hits = 0
    for batch in eval_loader(source, batch_size=500):
        hits += int((predict_batch(graphdef, state, batch["pixels"])["gap"] == batch["label"]).sum())
    assert hits / len(source) == pytest.approx(0.8103, abs=0.0005)
