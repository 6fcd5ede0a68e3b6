"""mAP of an evaluation: scikit-learn's, and its interval from resampled images."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import average_precision_score

from castream_jax.data import Record
from castream_jax.evaluation.multi_label import (
    MEASURE,
    class_scores_table,
    share_class_scores,
    summarise_class_scores,
)
from castream_jax.evaluation.statistics import bootstrap_counts
from castream_jax.experiment.workdir import Workdir
from castream_jax.metrics.average_precision import average_precision, resampled_average_precision


class Named:
    """A source of which names are read, and nothing else."""

    class_names = ("a", "b", "c")

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Record:
        raise NotImplementedError

    def name(self, index: int) -> str:
        return f"image {index}"


def make_table(rng: np.random.Generator, images: int) -> tuple[pa.Table, dict[str, np.ndarray], dict]:
    """Two batches, the last one padded; every seventh image left out of class 1."""
    logits = {head: rng.normal(size=(images, 3)).astype(np.float32) for head in ("gap", "ca")}
    batch = {
        "index": np.append(np.arange(images), -1),
        "mask": np.append(np.ones(images, bool), False),
        "target": np.append(rng.random((images, 3)) < 0.4, [[False] * 3], axis=0).astype(np.float32),
        "target_mask": np.ones((images + 1, 3), bool),
    }
    batch["target_mask"][::7, 1] = False
    padded = {head: np.append(of_head, np.zeros((1, 3), np.float32), axis=0) for head, of_head in logits.items()}
    halves = [slice(0, 10), slice(10, None)]
    batches = [({k: v[half] for k, v in batch.items()}, {h: v[half] for h, v in padded.items()}) for half in halves]
    return class_scores_table(iter(batches), Named()), logits, {k: v[:-1] for k, v in batch.items()}


def test_map_is_scikit_learns_and_its_interval_that_of_resampled_images():
    rng = np.random.default_rng(0)
    table, logits, batch = make_table(rng, images=80)
    assert len(table) == 160
    assert table["name"][2].as_py() == "image 1"
    summary = summarise_class_scores(table)
    means = {}
    for head, scores in logits.items():
        of_class = []
        for k in range(3):
            here = batch["target_mask"][:, k]
            of_class.append(average_precision_score(batch["target"][here, k] > 0, scores[here, k]))
        means[head] = np.mean(of_class)
        assert summary[head][MEASURE] == pytest.approx(means[head])
        low, high = summary[head]["intervals"][MEASURE]
        assert 0.02 < high - low < 0.3
        assert low < means[head] + 0.05  # resampled AP is biased upwards a little: images there twice rank together
    difference = summary["ca"]["difference"]
    assert difference[MEASURE] == pytest.approx(means["ca"] - means["gap"])
    low, high = difference["intervals"][MEASURE]
    assert low < high
    assert "difference" not in summary["gap"]


def test_other_protocols_of_a_run_take_the_logits_that_are_there(tmp_path: Path):
    first = Workdir.at(tmp_path)
    other = first.under("rise")
    other.evaluation.mkdir(parents=True)
    share_class_scores(first, other)  # no labels of several classes: there is nothing to share
    assert list(other.evaluation.iterdir()) == []
    first.class_scores.write_bytes(b"logits")
    share_class_scores(first, first)
    share_class_scores(first, other)
    assert other.class_scores.read_bytes() == first.class_scores.read_bytes() == b"logits"
    other.class_scores.write_bytes(b"its own")
    share_class_scores(first, other)
    assert other.class_scores.read_bytes() == b"its own"


def test_resampling_is_scikit_learns_sample_weight():
    rng = np.random.default_rng(1)
    scores = np.round(rng.random(60), 1)  # with ties
    positives = rng.random(60) < 0.3
    (times,) = bootstrap_counts(60, 20)
    found = resampled_average_precision(scores, positives, times)
    expected = [average_precision_score(positives, scores, sample_weight=weights) for weights in times]
    np.testing.assert_allclose(found, expected, rtol=1e-6)  # float32 sums
    assert np.isnan(resampled_average_precision(scores, np.zeros(60, bool), times)).all()
    once = np.ones((1, 60), np.float32)
    assert resampled_average_precision(scores, positives, once)[0] == pytest.approx(
        average_precision(scores[:, None], positives[:, None])[0]
    )
