"""Whole-dataset evaluation: nothing lost, nothing counted twice, the same on any devices and after interruptions."""

# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable
import json
import os
from pathlib import Path
import shutil
import socket
import subprocess
import sys
import time
from typing import NamedTuple

import compiled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.stats

import castream_jax as castream
from castream_jax.backbones import save_torch_weights
from castream_jax.data import Source, open_source
from castream_jax.data.batches import BatchIterator
from castream_jax.evaluation import evaluate, explain_parts
from castream_jax.evaluation.parts import evenly_spaced, list_parts, regroup
from castream_jax.experiment.config import Config
from castream_jax.experiment.restore import restore_model
from castream_jax.runtime.mesh import data_mesh
from castream_jax.training import train

ROOT = Path(__file__).parents[2]


TIMING = ("date", "timed_images", "seconds", "images_per_second")


@pytest.fixture(scope="session")
def small_batches(tiny_config) -> Callable[[], Config]:
    """50 of 359 images explained, in parts of 20: three explained parts, the last of 10, and 16 of predictions."""
    return lambda: tiny_config(evaluation={"batch_size": 10, "images_per_part": 11})


@pytest.fixture
def trained(small_batches, trained_workdir: Path) -> tuple[Config, Path]:
    return small_batches(), trained_workdir


@pytest.fixture(scope="session")
def evaluated(small_batches, trained_once: Path, once) -> tuple[Config, Path]:
    """Evaluated without an interruption, on all devices; to read."""
    config = small_batches()
    return config, once("evaluated", lambda path: evaluate(config, shutil.copytree(trained_once, path)))


def read_rows(workdir: Path) -> list[dict]:
    paths = sorted((workdir / "evaluation" / "rows").iterdir())
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def result_files(workdir: Path) -> dict[str, bytes]:
    """Every file of an evaluation but the summary."""
    folder = workdir / "evaluation"
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "summary.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def untimed(summary: dict) -> dict:
    return {key: value for key, value in summary.items() if key not in TIMING}


class Reference(NamedTuple):
    """The evaluated images by the Python API: of all 359, labels and who is right; of the 50 explained, the scores."""

    source: Source
    labels: np.ndarray
    logits: dict[str, np.ndarray]
    chosen: np.ndarray
    scores: dict

    def hits(self, head: str) -> np.ndarray:
        return self.logits[head].argmax(-1) == self.labels


@pytest.fixture(scope="module")
def reference(evaluated) -> Reference:
    config, workdir = evaluated
    source, model = open_source(config.data, "test"), restore_model(config, workdir)
    labels = np.array([source[i]["label"] for i in range(len(source))])
    pixels = np.stack([source[i]["pixels"] for i in range(len(source))]).astype(np.float32) / 255
    logits = jax.device_get(compiled.logits(model, pixels))
    chosen = evenly_spaced(len(source), 50)
    maps = castream.attribute(model, pixels[chosen], labels[chosen], methods=("gradcam", "attention"))
    scores = castream.score(model, pixels[chosen], labels[chosen], maps)
    return Reference(source, labels, logits, chosen, jax.device_get(scores))


def read_summary(workdir: Path) -> dict:
    return json.loads((workdir / "evaluation" / "summary.json").read_text())


def test_there_is_a_row_per_image_head_and_method(evaluated, reference):
    _, workdir = evaluated
    rows = read_rows(workdir)
    assert len(rows) == 50 * 3  # Grad-CAM under two heads, raw attention of one; the last batch holds 10 of 40
    assert len({(row["index"], row["head"], row["method"]) for row in rows}) == len(rows)
    assert sorted({row["index"] for row in rows}) == reference.chosen.tolist()
    assert {row["protocol"] for row in rows} == {read_summary(workdir)["protocol"]["hash"]}
    for row in rows:
        assert row["label"] == reference.labels[row["index"]]
        assert row["name"] == reference.source.name(row["index"])
        hit = reference.hits(row["head"])[row["index"]]
        assert row["correct"] == hit == (row["prediction"] == row["label"])


def test_the_scores_of_a_row_equal_the_python_api(evaluated, reference):
    for row in read_rows(evaluated[1]):
        expected = reference.scores[row["head"], row["method"]]
        place = int(np.flatnonzero(reference.chosen == row["index"])[0])
        for metric in ("AD", "AG", "AI", "I", "D", "p", "o", "insertion_curve", "deletion_curve"):
            # 1e-4: sums in another order, and AG divides by 1 - p. Along a curve, another one of two pixels that are
            # almost equally salient may then come first.
            bar = 1e-3 if metric in ("I", "D", "insertion_curve", "deletion_curve") else 1e-4
            assert row[metric] == pytest.approx(expected[metric][place], abs=bar), metric


def test_accuracies_and_their_sign_test_are_of_all_images(evaluated, reference):
    heads = read_summary(evaluated[1])["heads"]
    for head, logits in reference.logits.items():
        assert heads[head]["accuracy"] == pytest.approx(np.mean(reference.hits(head)))
        above = (logits > np.take_along_axis(logits, reference.labels[:, None], axis=1)).sum(axis=1)
        assert heads[head]["top5_accuracy"] == pytest.approx(np.mean(above < 5))
    ca, gap = reference.hits("ca"), reference.hits("gap")
    gained, lost = int(np.sum(ca & ~gap)), int(np.sum(~ca & gap))
    sign_test = heads["ca"]["difference"]["sign_tests"]["accuracy"]
    assert (sign_test["higher"], sign_test["lower"], sign_test["ties"]) == (gained, lost, 359 - gained - lost)
    assert sign_test["p"] == pytest.approx(scipy.stats.binomtest(gained, gained + lost).pvalue)


def interval(values: np.ndarray):
    """The 95 % interval of a mean that the bootstrap tends to; a tenth of its width is allowed."""
    half = 1.96 * values.std() / np.sqrt(len(values))
    return pytest.approx([values.mean() - half, values.mean() + half], abs=0.2 * half)


def test_the_summary_holds_means_and_paired_differences_with_their_intervals(evaluated, reference):
    summary = read_summary(evaluated[1])
    for entry in summary["metrics"]:
        values = np.asarray(reference.scores[entry["head"], entry["method"]]["AD"], np.float64)
        assert entry["AD"] == pytest.approx(values.mean(), abs=1e-5)
        assert entry["intervals"]["AD"] == interval(values)
    (difference,) = summary["differences"]
    assert (difference["head"], difference["method"]) == ("ca", "gradcam")
    paired = np.float64(reference.scores["ca", "gradcam"]["I"] - reference.scores["gap", "gradcam"]["I"])
    assert difference["I"] == pytest.approx(paired.mean(), abs=1e-5)
    assert difference["intervals"]["I"] == interval(paired)


def test_curves_are_means_within_their_band(evaluated, reference):
    curves = {
        (r["head"], r["method"], r["curve"]): r
        for r in pq.read_table(evaluated[1] / "evaluation" / "curves.parquet").to_pylist()
    }
    mean = np.mean(reference.scores["gap", "gradcam"]["insertion_curve"], axis=0)
    band = curves["gap", "gradcam", "insertion"]
    np.testing.assert_allclose(band["mean"], mean, rtol=0, atol=1e-5)
    assert np.all(np.array(band["low"]) < mean)
    assert np.all(np.array(band["high"]) > mean)


def test_the_function_returns_the_summary_it_writes(trained):
    config, workdir = trained
    config.evaluation.update(max_images=2, gallery=0, curves=False, reference_method="gradcam+")
    with pytest.raises(ValueError, match=r"reference_method is 'gradcam\+', which is not evaluated \(gradcam, "):
        evaluate(config, workdir)
    config.evaluation.reference_method = "gradcam"
    summary = evaluate(config, workdir)
    assert summary == read_summary(workdir)
    compared = {entry["method"] for entry in summary["method_differences"] if entry["reference"] == "gradcam"}
    assert compared == {entry["method"] for entry in summary["metrics"]} - {"gradcam"}


def interrupt_after(monkeypatch: pytest.MonkeyPatch, parts: int) -> None:
    """Ctrl-C where the evaluation would write the next part."""
    written = []
    original = explain_parts.write_part

    def write_part(*arguments, **options):
        if len(written) == parts:
            raise KeyboardInterrupt
        written.append(original(*arguments, **options))

    monkeypatch.setattr(explain_parts, "write_part", write_part)


@pytest.mark.parametrize("parts", [1, 5])  # among the parts that are explained, and among those that are predicted
def test_an_interrupted_evaluation_continues(trained, evaluated, monkeypatch, capsys, parts: int):
    config, workdir = trained
    expected, files = read_summary(evaluated[1]), result_files(evaluated[1])
    with monkeypatch.context() as patch:
        interrupt_after(patch, parts)
        with pytest.raises(KeyboardInterrupt):
            evaluate(config, workdir)
    left = sorted((workdir / "evaluation" / "predictions").iterdir())
    assert len(left) == parts
    (left[0].parent / ".123.tmp.part-00007.parquet").write_text("half written by a killed process")
    times = [path.stat().st_mtime_ns for path in left]
    capsys.readouterr()
    summary = evaluate(config, workdir)
    assert [path.stat().st_mtime_ns for path in left] == times
    assert result_files(workdir) == files
    assert untimed(summary) == untimed(expected)
    done = {1: 20, 5: 90}[parts]
    assert f"continuing after {done} of 359 images" in capsys.readouterr().err
    assert summary["timed_images"] == 359 - done

    # Everything is there: nothing runs on the devices, and the summary is made anew.
    (workdir / "evaluation" / "summary.json").write_text(json.dumps({**summary, "metrics": []}))
    monkeypatch.delattr(explain_parts, "explain_batch")
    monkeypatch.delattr(explain_parts, "predict_batch")
    again = evaluate(config, workdir)
    assert {**again, "date": summary["date"]} == summary


@pytest.mark.slow
def test_results_of_another_run_are_replaced_and_this_is_said(trained, capsys):
    config, workdir = trained
    config.evaluation.methods = ("attention",)
    evaluate(config, workdir)
    assert "another run" not in capsys.readouterr().err
    config.evaluation.update(protocol="castream-pred", methods=("gradcam",), curves=False)
    summary = evaluate(config, workdir)
    # "differs in" lists fields; wrapped by the terminal or not.
    assert (
        "another run, which differs in protocol, methods, curves: they are kept in earlier/" in capsys.readouterr().err
    )
    rows = read_rows(workdir)
    assert {row["method"] for row in rows} == {"gradcam"}
    assert {row["protocol"] for row in rows} == {castream.get_protocol("castream-pred").hash}
    assert "insertion_curve" not in rows[0]
    assert not (workdir / "evaluation" / "curves.parquet").exists()
    assert {entry["method"] for entry in summary["metrics"]} == {"gradcam"}


def test_a_larger_gallery_keeps_the_rows(evaluated, small_batches, tmp_path, capsys):
    config, workdir = small_batches(), Path(shutil.copytree(evaluated[1], tmp_path / "run"))
    files = result_files(workdir)
    for size in (7, 0):
        config.evaluation.gallery = size
        evaluate(config, workdir)
        assert "another run" not in capsys.readouterr().err
        now = result_files(workdir)
        assert {name: files[name] for name in files if "gallery" not in name} == {
            name: now[name] for name in now if "gallery" not in name
        }
        if size:
            with np.load(workdir / "evaluation" / "gallery.npz") as gallery:
                assert gallery["index"].tolist() == evenly_spaced(359, 50)[evenly_spaced(50, size)].tolist()
    assert not (workdir / "evaluation" / "gallery.npz").exists()


@pytest.mark.slow
def test_padding_is_not_counted_as_correct(tiny_config, tmp_path: Path):
    """A backbone that always says class 0 would be right about every row of padding, whose label is 0."""
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    backbone.linear.bias[...] = jnp.array([1e6] + [0.0] * 9)
    save_torch_weights(backbone, tmp_path / "zero.safetensors")
    config = tiny_config(backbone={"weights": str(tmp_path / "zero.safetensors")}, optimizer={"learning_rate": 1e-9})
    summary = evaluate(config, train(config, tmp_path / "run"))
    source = open_source(config.data, "test")
    share = np.mean([source[i]["label"] == 0 for i in range(len(source))])
    assert len(source) % config.evaluation.batch_size
    for head in summary["heads"].values():
        assert head["accuracy"] == pytest.approx(share)


def assert_same_results(ours: Path, reference: Path, *, reordered: int = 0) -> None:
    """Rows and summaries equal to 1e-6.

    Insertion and deletion of so many `reordered` rows may differ by 1e-3, and their means by 1e-5.
    """
    moved = set()
    for number, (row, expected) in enumerate(zip(read_rows(ours), read_rows(reference), strict=True)):
        assert row.keys() == expected.keys()
        for name, value in expected.items():
            if not isinstance(value, float | list):
                assert row[name] == value
            elif name in ("I", "D", "insertion_curve", "deletion_curve") and reordered:
                np.testing.assert_allclose(row[name], value, rtol=0, atol=1e-3, err_msg=name)
                if np.max(np.abs(np.subtract(row[name], value))) > 1e-6:
                    moved.add(number)
            else:
                np.testing.assert_allclose(row[name], value, rtol=0, atol=1e-6, err_msg=name)
    assert len(moved) <= reordered
    ours_summary, reference_summary = (
        json.loads((workdir / "evaluation" / "summary.json").read_text()) for workdir in (ours, reference)
    )
    assert ours_summary["run"] == reference_summary["run"]
    tolerance = 1e-5 if reordered else 1e-6
    for key in ("metrics", "differences", "heads"):
        leaves, expected = (jax.tree.leaves_with_path(s[key]) for s in (ours_summary, reference_summary))
        for (path, leaf), (_, value) in zip(leaves, expected, strict=True):
            assert leaf == (pytest.approx(value, rel=0, abs=tolerance) if isinstance(value, float) else value), path


@pytest.mark.slow
def test_the_number_of_devices_changes_nothing(trained, evaluated):
    config, workdir = trained
    on = {4: evaluated[1]}
    for devices in (1, 2):
        on[devices] = Path(shutil.copytree(workdir, workdir.parent / f"{devices} devices"))
        evaluate(config, on[devices], mesh=data_mesh(jax.devices()[:devices]))
    assert_same_results(on[4], on[2])
    # The compiler makes another program for one device than for several: saliency differs by 2e-7, and where pixels
    # are as close as that, they change places. (This model is hardly trained, and its maps are flat.)
    assert_same_results(on[4], on[1], reordered=3)


@pytest.mark.system
def test_a_killed_process_is_continued_by_two(trained, tmp_path: Path):
    """kill -9 after the first part, then two processes: the files that one uninterrupted process writes."""
    config, workdir = trained
    config.evaluation.max_images = 150
    killed = Path(shutil.copytree(workdir, tmp_path / "killed"))
    (tmp_path / "config.json").write_text(config.to_json())
    command = [sys.executable, "-m", "castream_jax", "evaluate", "--config", str(tmp_path / "config.json")]
    command += ["--workdir", str(killed)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "2"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    first = killed / "evaluation" / "predictions" / "part-00000.parquet"
    while not first.exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (killed / "evaluation" / "summary.json").exists()
    written = first.stat().st_mtime_ns

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        environment["CASTREAM_COORDINATOR"] = f"127.0.0.1:{free.getsockname()[1]}"
    environment["CASTREAM_NUM_PROCESSES"] = "2"
    pair = [
        subprocess.Popen(
            command,
            env={**environment, "CASTREAM_PROCESS_ID": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    (output, errors), (silence, _) = (process.communicate(timeout=240) for process in pair)
    assert [process.returncode for process in pair] == [0, 0], errors
    assert "continuing after" in errors
    assert "Grad-CAM" in output
    assert "Grad-CAM" not in silence  # only process 0 prints
    assert first.stat().st_mtime_ns == written
    assert (killed / "report" / "index.html").exists()
    evaluate(config, workdir)
    assert result_files(killed).keys() == result_files(workdir).keys()
    assert_same_results(killed, workdir)


def test_batches_are_read_as_they_are_needed(trained, monkeypatch):
    """Never more than two batches ahead of the results: the data set need not fit into memory."""
    config, workdir = trained
    read, taken, ahead = [], [], []
    original_next, original_one_behind = BatchIterator.__next__, explain_parts.one_behind

    def counting_next(iterator: BatchIterator):
        batch = original_next(iterator)
        read.append(batch["index"])
        ahead.append(len(read) - len(taken))
        return batch

    def counting_results(*arguments):
        for result in original_one_behind(*arguments):
            taken.append(result)
            yield result

    monkeypatch.setattr(BatchIterator, "__next__", counting_next)
    monkeypatch.setattr(explain_parts, "one_behind", counting_results)
    evaluate(config, workdir)
    assert len(read) == 2 + 8  # 50 and the other 309 images, 10 for each of 4 devices
    assert max(ahead) == 2


def test_gallery_holds_what_the_report_shows(evaluated):
    with np.load(evaluated[1] / "evaluation" / "gallery.npz") as gallery:
        assert gallery["pixels"].shape == (4, 32, 32, 3)
        assert gallery["box"].shape == (4, 4)
        for name in ("map/gap/gradcam", "map/ca/gradcam", "map/ca/attention"):
            assert gallery[name].shape == (4, 8, 8)
        assert gallery["prediction/ca"].shape == (4,)


def test_parts_cover_every_image_once():
    parts = list_parts(359, 40, max_images=50, gallery=4)
    assert [len(part.positions) for part in parts] == [40, 10, *[40] * 7, 29]
    assert [part.explained for part in parts] == [True] * 2 + [False] * 8
    assert sorted(np.concatenate([part.positions for part in parts])) == list(range(359))
    assert np.concatenate([part.shown for part in parts]).tolist() == [0, 86, 179, 265]
    assert [part.explained for part in list_parts(90, 40, max_images=0, gallery=0)] == [True] * 3


def test_regroup_cuts_blocks_of_any_size():
    numbers = np.arange(23)
    blocks = ({"a": part, "b": {"c": part[:, None]}} for part in np.split(numbers, [3, 3, 12, 14]))
    groups = list(regroup(blocks, [5, 6, 1, 11]))
    assert [len(group["a"]) for group in groups] == [5, 6, 1, 11]
    np.testing.assert_array_equal(np.concatenate([group["a"] for group in groups]), numbers)
    np.testing.assert_array_equal(np.concatenate([group["b"]["c"] for group in groups])[:, 0], numbers)


@pytest.mark.parametrize(("length", "count", "expected"), [(10, 3, [0, 3, 6]), (4, 0, [0, 1, 2, 3]), (2, 5, [0, 1])])
def test_evenly_spaced(length: int, count: int, expected: list[int]):
    assert evenly_spaced(length, count).tolist() == expected


def test_impossible_settings_are_refused(trained):
    config, workdir = trained
    config.evaluation.images_per_part = 0
    with pytest.raises(ValueError, match=r"config\.evaluation\.images_per_part must be at least 1, got 0\."):
        evaluate(config, workdir)


@pytest.mark.slow
def test_published_resnet20_on_cifar10(shared: Path, tmp_path: Path, tiny_config, golden_model):
    """81.03 % on the 10,000 JPEG test images, what PyTorch gives on the same files."""
    import tarfile

    from castream_jax.data import ImageFolder, eval_loader
    from castream_jax.evaluation.on_device import predict_batch

    with tarfile.open(shared / "data" / "cifar10_jpeg.tar.xz") as archive:
        archive.extractall(tmp_path, [m for m in archive if m.name.startswith("test")], filter="data")
    source = ImageFolder(tmp_path, "test")
    assert len(source) == 10_000
    hits = 0
    for batch in eval_loader(source, batch_size=500):
        hits += int((predict_batch(golden_model, batch["pixels"]).top["gap"][:, 0] == batch["label"]).sum())
    assert hits / len(source) == pytest.approx(0.8103, abs=0.0005)
