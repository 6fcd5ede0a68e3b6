"""Where images have boxes, an evaluation says whether maps point into them."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from castream_jax.data import open_source
from castream_jax.evaluation import evaluate
from castream_jax.metrics.localisation import localisation_scores
from castream_jax.reporting import write_report


@pytest.mark.slow
def test_maps_are_held_against_the_boxes_of_their_images(trained_workdir: Path, tiny_config):
    config = tiny_config(evaluation={"methods": ("gradcam",), "baselines": True, "max_images": 12})
    found = evaluate(config, trained_workdir)["localisation"]
    source = open_source(config.data, "test")
    rows = pq.read_table(trained_workdir / "evaluation" / "rows").to_pylist()
    boxes = {index: source[index]["box"] for index in {row["index"] for row in rows}}
    assert found["images"] == len(boxes) == 12
    # A map of ones has its energy everywhere: the share of the image that the boxes are.
    share = np.mean([(x1 - x0) * (y1 - y0) / 32**2 for x0, y0, x1, y1 in boxes.values()])
    (ones,) = (e for e in found["metrics"] if (e["head"], e["method"]) == ("gap", "ones"))
    np.testing.assert_allclose(ones["EPG"], share, rtol=1e-6)
    low, high = ones["intervals"]["EPG"]
    assert low < share < high
    for row in rows:
        assert row["PG"] in (0, 1)
        assert 0 <= row["IoU"] <= 1
    assert {e["head"] for e in found["differences"]} == {"ca"}
    page = write_report(trained_workdir).read_text()
    assert "Where the maps point" in page


def test_an_image_without_a_box_has_no_score():
    saliency = np.zeros((3, 8, 8))
    saliency[:, 2, 2] = 1
    boxes = np.array([[[1, 1, 4, 4], [0, 0, 0, 0]], [[0, 0, 0, 0]] * 2, [[7.6, 0, 8.2, 8], [-5, 0, 0, 8]]])
    scores = localisation_scores(saliency, boxes)
    np.testing.assert_array_equal(scores["PG"], [1, np.nan, np.nan])
    np.testing.assert_array_equal(scores["EPG"], [1, np.nan, np.nan])
    np.testing.assert_allclose(scores["IoU"], [1 / 9, np.nan, np.nan])
