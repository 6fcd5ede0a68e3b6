"""The figures' contents: the attention-CAM identity on real features, and drawn lines against the numbers they show."""

# pyright: reportAttributeAccessIssue=false

from pathlib import Path

from flax import nnx
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import castream_jax as castream
from castream_jax.drawing.figure_files import save_figure
from castream_jax.reproduce.identity_figure import channel_weights, check_identity, draw_identity
from castream_jax.reproduce.measured_figures import draw_curves, draw_placements, placements


def test_attention_before_softmax_is_a_cam_up_to_float32_rounding(golden_model, golden):
    pixels = jnp.asarray(golden["images"][:32], jnp.float32) / 255
    identity = check_identity(golden_model, "ca", pixels)
    assert (identity.difference <= identity.bound).all()
    # The bound is rounding and no more: other weights, such as another image's, miss it by far.
    assert identity.bound.max() < 1e-4
    assert identity.difference.max() > 0  # the two sides are computed apart
    stages = golden_model.backbone.stages(pixels)
    stream = golden_model.heads["ca"]
    others = np.roll(np.asarray(channel_weights(stream, stages, jnp.zeros(32, int)), np.float64), 1, axis=0)
    cam = np.einsum("bhwk,bk->bhw", np.asarray(stages[-1], np.float64), others)
    assert (np.abs(identity.attention - cam).max((1, 2)) > 1000 * identity.bound.max((1, 2))).all()
    # The official implementation's logits are the same maps.
    np.testing.assert_allclose(identity.cam, golden["attention_logits_3"][:32], rtol=0, atol=1e-4)  # as test_stream


@pytest.mark.parametrize("fields", [{"start_stage": 3}, {"num_queries": 10}, {"start_stage": 3, "num_queries": 10}])
def test_the_identity_holds_for_every_stream_of_plain_cross_attention(small_model, fields):
    stream = castream.CrossAttentionStream(small_model.backbone.stage_dims, **fields, rngs=nnx.Rngs(3))
    model = castream.Model(small_model.backbone, {"gap": castream.GlobalAveragePooling(), "ca": stream})
    pixels = jnp.asarray(np.random.default_rng(0).random((6, 32, 32, 3), np.float32))
    identity = check_identity(model, "ca", pixels)
    assert (identity.difference <= identity.bound).all()
    assert np.ptp(identity.cam) > 1000 * identity.bound.max()


@pytest.mark.parametrize("fields", [{"block": "proj_ca"}, {"num_heads": 2}])
def test_the_identity_is_refused_where_the_paper_does_not_state_it(small_model, fields):
    stream = castream.CrossAttentionStream(small_model.backbone.stage_dims, **fields, rngs=nnx.Rngs(3))
    model = castream.Model(small_model.backbone, {"ca": stream})
    with pytest.raises(ValueError, match=r"Eq\. 5 is about plain cross attention"):
        check_identity(model, "ca", jnp.zeros((1, 32, 32, 3)))


def test_the_identity_is_drawn_with_its_largest_difference(small_model):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    identity = check_identity(small_model, "ca", jnp.asarray(pixels, jnp.float32) / 255)
    figure = draw_identity(identity, pixels, ["cat", "dog"])
    panels = [ax for ax in figure.axes if ax.images and ax.get_label() != "<colorbar>"]
    assert f"{identity.difference.max():.1e}" in panels[3].get_title()
    np.testing.assert_array_equal(panels[5].images[0].get_array(), identity.attention[1])
    np.testing.assert_array_equal(panels[6].images[0].get_array(), identity.cam[1])
    assert panels[5].images[0].get_clim() == panels[6].images[0].get_clim()


SUMMARY = {
    "heads": {
        "ca": {"accuracy": 0.75, "parameters": 700, "intervals": {"accuracy": [0.7, 0.8]}},
        "gap": {"accuracy": 0.7, "parameters": 0, "intervals": {"accuracy": [0.65, 0.75]}},
        "from_s2": {"accuracy": 0.5, "parameters": 300, "intervals": {"accuracy": [0.4, 0.65]}},
        "proj_ca": {"accuracy": 0.1, "parameters": 9000},
    },
    "metrics": [{"head": head, "method": "gradcam"} for head in ("ca", "gap")],
}


def test_curves_are_drawn_with_their_bands(tmp_path: Path):
    rng = np.random.default_rng(0)
    rows = []
    for head in ("gap", "ca"):
        for curve in ("insertion", "deletion"):
            low, mean, high = np.sort(rng.random((3, 9)), axis=0)
            rows.append({"head": head, "method": "gradcam", "curve": curve, "mean": mean, "low": low, "high": high})
    path = tmp_path / "curves.parquet"
    with pytest.raises(ValueError, match=r"evaluate with --config\.evaluation\.curves=True"):
        draw_curves(path, SUMMARY)
    pq.write_table(pa.Table.from_pylist(rows), path)
    figure = draw_curves(path, SUMMARY)
    drawn = [line for ax in figure.axes for line in ax.lines]
    bands = [band for ax in figure.axes for band in ax.collections]
    order = [("gap", "insertion"), ("ca", "insertion"), ("gap", "deletion"), ("ca", "deletion")]
    for (head, curve), line, band in zip(order, drawn, bands, strict=True):
        (row,) = [row for row in rows if (row["head"], row["curve"]) == (head, curve)]
        np.testing.assert_array_equal(line.get_xdata(), np.linspace(0, 100, 9))
        np.testing.assert_allclose(line.get_ydata(), row["mean"])
        edge = {(round(x, 6), round(y, 9)) for x, y in np.asarray(band.get_paths()[0].vertices).tolist()}
        for end in ("low", "high"):
            assert {(round(12.5 * i, 6), round(y, 9)) for i, y in enumerate(row[end])} <= edge
    assert drawn[0].get_linestyle() != drawn[1].get_linestyle()  # told apart without colours
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"GAP", "ca"}


def test_placements_are_drawn_in_order_with_intervals(tmp_path: Path):
    streams = placements(SUMMARY, {"from_s2": 2, "ca": 0, "from_s1": 1}, 3, {"ca": 74.7})
    assert [(s.label, s.parameters, s.paper) for s in streams] == [("S0–S3", 700, 74.7), ("S2–S3", 300, None)]
    assert streams[1][2:5] == pytest.approx((50, 40, 65))
    figure = draw_placements(streams, SUMMARY)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["GAP (no parameters)", "hollow: published", "S0–S3, 700", "S2–S3, 300"]
    assert "(thousands)" in figure.axes[0].get_xlabel()
    bars = [bar.lines[0].get_xydata()[0].tolist() for bar in figure.axes[0].containers]
    assert bars == [pytest.approx([0.7, 75]), pytest.approx([0.3, 50])]
    close = [stream._replace(parameters=n) for stream, n in zip(streams, (1000, 999), strict=True)]
    right, left = (bar.lines[0].get_xdata()[0] for bar in draw_placements(close, SUMMARY).axes[0].containers)
    assert (left, right) == pytest.approx((0.999, 1.024))  # apart, in their order
    png, pdf, text = save_figure(figure, tmp_path / "figures", "fig-placement", ["Caption."])
    assert png.read_bytes().startswith(b"\x89PNG")
    assert pdf.read_bytes().startswith(b"%PDF")
    assert text.read_text() == "![fig-placement](fig-placement.png)\n\nCaption.\n"
    before = pdf.read_bytes()
    save_figure(figure, tmp_path / "figures", "fig-placement", ["Caption."])
    assert pdf.read_bytes() == before
