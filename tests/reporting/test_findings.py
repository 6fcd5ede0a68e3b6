"""What the report says in words, in the sanity check's matrix and of classes: from numbers whose truth is known."""

import json
from pathlib import Path
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from castream_jax.drawing.attention_scale import on_scale, stretched_to_ratios
from castream_jax.reporting.in_words import in_words
from castream_jax.reporting.measured_curves import training_curves
from castream_jax.reporting.recognition_tables import Confusion, recognition_tables
from castream_jax.reporting.sanity_table import sanity_table

UP, DOWN, UNKNOWN = [0.01, 0.02], [-0.02, -0.01], [-0.01, 0.01]


def entry(method: str, intervals: dict, **more: str) -> dict:
    return {"head": "ca", "method": method, "intervals": intervals, **more}


def test_findings_say_what_the_intervals_say():
    accuracy = {"accuracy": -0.001, "intervals": {"accuracy": [-0.005, 0.003]}}
    summary = {
        "heads": {"gap": {"accuracy": 0.75}, "ca": {"accuracy": 0.749, "difference": accuracy}},
        "reference_method": "gradcam",
        # AD and D are better when lower.
        "differences": [entry("gradcam", {"AD": DOWN, "AG": UP, "AI": UNKNOWN, "I": DOWN, "D": UP})],
        "method_differences": [
            entry("mine", {"AD": UNKNOWN, "I": UNKNOWN}, reference="gradcam"),
            entry("random", {"AD": UP}, reference="gradcam"),
            entry("gradcam", {"AD": DOWN, "I": UP, "D": UNKNOWN}, reference="random"),
            entry("gradcam", {"AD": UP, "I": UNKNOWN}, reference="centre"),
            entry("attention", {"AD": UP, "I": DOWN, "D": DOWN}, reference="random"),
        ],
        "sanity": [
            {"head": "ca", "method": "gradcam", "randomised": "nothing", "rank_correlation": 1.0},
            {"head": "ca", "method": "gradcam", "randomised": "S0", "rank_correlation": 0.1},
            {"head": "ca", "method": "mine", "randomised": "classifier", "rank_correlation": 0.2},
            {"head": "ca", "method": "mine", "randomised": "S0", "rank_correlation": 0.9},
        ],
    }
    words = in_words(summary)
    assert words.findings == [
        "The stream ca keeps accuracy (−0.1 ± 0.4 points; GAP has 75.0 %).",
        "By Grad-CAM, ca compared with GAP: better by AD and AG; worse by I and D; undecided by AI.",
        "mine under ca compared with Grad-CAM: no difference is established.",
        "Worse than random maps by more metrics than better: Raw attention under ca; do not use it alone.",
        "With stream and classifier random, mine under ca stays much the same: such maps do not show what these have "
        "learnt.",
    ]
    assert words.baselines == [
        "Grad-CAM under ca beats random maps by AD and I; it beats a blob in the centre by no metric and loses to it "
        "by AD.",
        "Raw attention under ca beats random maps by D and loses to them by AD and I.",
    ]
    assert in_words({"heads": {"gap": {"accuracy": 0.5}}, "metrics": []}) == ([], [])


@pytest.mark.parametrize(
    ("difference", "interval", "said"),
    [
        (-0.0002, [-0.004, 0.004], "The stream ca keeps accuracy (+0.0 ± 0.4 points; GAP has 75.0 %)."),
        (-0.01, [-0.1, 0.08], "Whether the stream ca keeps accuracy is undecided (−1.0 ± 9.0 points; GAP has 75.0 %)."),
        (-0.05, [-0.08, -0.02], "The stream ca lowers accuracy (−5.0 ± 3.0 points; GAP has 75.0 %)."),
    ],
)
def test_an_accuracy_is_kept_where_its_interval_is_narrow(difference, interval, said):
    ca = {"accuracy": 0.75 + difference, "difference": {"accuracy": difference, "intervals": {"accuracy": interval}}}
    assert in_words({"heads": {"gap": {"accuracy": 0.75}, "ca": ca}, "metrics": []}).findings == [said]


@pytest.mark.parametrize(
    ("method", "stream", "reads_from"),
    [
        ("gradcam", {}, "classifier"),
        ("attention", {}, "S1"),  # at S2, `ca` blocks: what comes before
        ("attention", {"block": "proj_ca"}, "S2"),  # its own keys
        ("attention:1", {}, "S0"),
        ("attention:0", {}, "S0"),  # the token with which the stream starts
    ],
)
def test_the_sanity_matrix_expects_a_change_from_where_a_map_reads_random_parameters(method, stream, reads_from):
    rows = ["nothing", "classifier", "S2", "S1", "S0"]
    sanity = [{"head": "ca", "method": method, "randomised": name, "rank_correlation": 0.6} for name in rows]
    sanity[-1]["rank_correlation"] = 0.0
    table = sanity_table({"sanity": sanity, "metrics": [{"method": method}]}, {"streams": {"ca": stream}})
    assert table is not None
    outcomes = [cells[0].outcome for _, cells in table.rows]
    at = rows.index(reads_from)
    assert outcomes == ["reads_none"] * at + ["unchanged"] * (4 - at) + ["changed"]


def predictions(folder: Path, labels: list[int], predicted: dict[str, list[int]]) -> Path:
    rows = [
        {"index": i, "label": label, "head": head, "prediction": values[i]}
        for i, label in enumerate(labels)
        for head, values in predicted.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "part-00000.parquet")
    return folder


def test_classes_are_counted_by_truth_and_prediction(tmp_path: Path):
    folder = predictions(tmp_path, [0, 0, 1, 2], {"ca": [0, 0, 1, 0], "gap": [0, 1, 1, 2]})
    summary = {"heads": {"ca": {}, "gap": {}}, "class_names": ["a", "b", "c"]}
    tables = recognition_tables(folder, summary)
    assert tables is not None
    assert tables.matrices == {"GAP": [[1, 1, 0], [0, 1, 0], [0, 0, 1]], "ca": [[2, 0, 0], [0, 1, 0], [1, 0, 0]]}
    assert tables.heads == ["GAP", "ca"]
    assert tables.classes == [("c", 1, ["100.0", "0.0"]), ("a", 2, ["50.0", "100.0"]), ("b", 1, ["100.0", "100.0"])]

    many = predictions(tmp_path, [*range(30), 29], {"gap": [*range(29), 3, 3]})
    tables = recognition_tables(many, {"heads": {"gap": {}}, "class_names": [f"class{n}" for n in range(30)]})
    assert tables is not None
    assert (len(tables.classes), tables.num_classes, tables.matrices) == (20, 30, {})
    assert tables.classes[0] == ("class29", 2, ["0.0"])
    assert tables.confusions == {"GAP": [Confusion("class29", "class3", 2)]}


def test_an_image_of_several_labels_is_no_confusion(tmp_path: Path):
    rows = [{"index": 0, "label": label, "head": "gap", "prediction": 0} for label in (0, 1)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "part-00000.parquet")
    assert recognition_tables(tmp_path, {"heads": {"gap": {}}, "class_names": ["a", "b"]}) is None


def test_attention_keeps_its_scale():
    attention = np.array([[0.1, 0.2], [0.3, 0.4]])
    ratios = 4 * attention
    stretched = (attention - 0.1) / 0.3
    np.testing.assert_allclose(stretched_to_ratios(stretched, 0.4, 1.6), ratios, atol=1e-12)
    np.testing.assert_allclose(on_scale(np.array([0, 1, 3, 9.0])), [0, 0.5, 0.75, 0.9])


def test_few_points_are_told_in_words_and_no_axis_exceeds_100_percent(tmp_path: Path):
    def drawn(accuracies: list[float]):
        records = [{"step": n, "epoch": n / 2, "ca/accuracy": a} for n, a in enumerate(accuracies, start=1)]
        (tmp_path / "log").write_text("\n".join(map(json.dumps, records)))
        return training_curves(tmp_path / "log", ["ca"])

    few = drawn([0.5, 0.75])
    assert few is not None
    assert (few.charts, few.few) == ([], ["Accuracy (%) of ca: 50 after 0.5 epochs, 75 after 1 epochs."])
    curve = drawn([0.9, 0.95, 1.0])
    assert curve is not None
    assert curve.few == []
    labels = [float(text) for text in re.findall(r">(\d+)</", curve.charts[0].svg)]
    assert 100 in labels
    assert max(labels) <= 100
