"""From rows to means."""

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats

from castream_jax.evaluation.summary import summarise_predictions, summarise_rows
from castream_jax.metrics import METRICS


@pytest.mark.parametrize("classes", [3, 10])
def test_top5_is_counted_where_there_are_more_than_five_classes(classes: int):
    columns = {
        "index": [0, 0, 1, 1],
        "head": ["gap", "ca"] * 2,
        "correct": [True, True, False, True],
        "correct_top5": [True, True, False, True],
    }
    if classes <= 5:
        del columns["correct_top5"]
    summary = summarise_predictions(pa.table(columns))
    assert summary["gap"]["accuracy"] == 0.5
    assert summary["ca"]["difference"]["accuracy"] == 0.5
    assert summary["gap"].get("top5_accuracy") == (None if classes <= 5 else 0.5)


def test_methods_are_compared_with_the_reference_under_the_same_head_image_by_image():
    rng = np.random.default_rng(0)
    images, keys = 200, [(head, method) for method in ("mine", "gradcam", "random") for head in ("gap", "ca")]
    # A hard image is hard for every map, so that pairing matters: unpaired intervals are ten times as wide.
    values = rng.normal(0, 1, (images, 1)) + rng.normal(0, 0.1, (images, len(keys)))
    columns = dict.fromkeys(METRICS, values.ravel())
    columns |= {"index": np.repeat(np.arange(images), len(keys))}
    columns |= {name: np.tile([key[k] for key in keys], images) for k, name in enumerate(("head", "method"))}
    measured = summarise_rows(pa.table(columns), ["gradcam"])
    found = {(entry["head"], entry["method"]): entry for entry in measured.method_differences}
    assert set(found) == {(head, method) for head in ("gap", "ca") for method in ("mine", "random")}
    for (head, method), entry in found.items():
        assert entry["reference"] == "gradcam"
        paired = values[:, keys.index((head, method))] - values[:, keys.index((head, "gradcam"))]
        assert entry["I"] == pytest.approx(paired.mean(), abs=1e-6)
        half = 1.96 * paired.std() / np.sqrt(images)  # what the bootstrap tends to
        assert entry["intervals"]["I"] == pytest.approx([entry["I"] - half, entry["I"] + half], abs=0.1 * half)
        test, higher = entry["sign_tests"]["I"], int(np.sum(paired > 0))
        assert (test["higher"], test["lower"]) == (higher, images - higher)
        assert test["p"] == pytest.approx(scipy.stats.binomtest(higher, images).pvalue)
    assert summarise_rows(pa.table(columns)).method_differences == []
