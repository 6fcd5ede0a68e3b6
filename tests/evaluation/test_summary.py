"""From rows to means."""

import pyarrow as pa
import pytest

from castream_jax.evaluation.summary import summarise_predictions


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
