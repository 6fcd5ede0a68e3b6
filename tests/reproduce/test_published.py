"""The published numbers, compared with every rendering of the paper at hand, with each other, and with our streams."""

from collections.abc import Iterator
import json
from pathlib import Path
import re

from flax import nnx
import jax
import pytest

import castream_jax as castream
from castream_jax.reproduce.published import TABLES, PublishedRow, published_rows

SUPPLEMENTARY = [f"supp-table{number}" for number in range(1, 6)]
RENDERINGS = {
    "paper.md": ("|", ["table1", *SUPPLEMENTARY]),
    "supplementary.md": ("\t", SUPPLEMENTARY),
    "poster.md": ("\t", ["table1"]),
    "slides.md": ("\t", ["table1"]),
}
# Score-CAM on Pascal VOC is in paper.md alone, see disagreements.json.
LOST = {"supplementary.md": ("Pascal VOC 2012", "scorecam")}
NAMES = {
    "gap": ("label", "GAP"),
    "ca": ("label", "CA"),
    "projca": ("label", "PROJ→CA"),
    "$proj \\rightarrow ca$": ("label", "PROJ→CA"),
    "class agnostic": ("label", "Class agnostic"),
    "class specific": ("label", "Class specific"),
    **{f"$s_{stage} - s_4$": ("label", f"S{stage}–S4") for stage in range(5)},
    "grad-cam": ("method", "gradcam"),
    "grad-cam++": ("method", "gradcam++"),
    "score-cam": ("method", "scorecam"),
    "cub-200-2011": ("dataset", "CUB-200-2011"),
    "pascal voc 2012": ("dataset", "Pascal VOC 2012"),
    "block type": ("dataset", "ImageNet"),
    **{name.casefold(): ("network", name) for name in ("ResNet-18", "ResNet-50", "ConvNeXt-S", "ConvNeXt-B")},
    # Misread by supplementary.md, see disagreements.json: they name nothing.
    **dict.fromkeys(("cred cam", "cred camu", "oldu-cam++", "cred came", "g (1)/"), ("method", None)),
}


def numbers(cell: str) -> list[str]:
    """Numbers of a cell, as printed; integers only where they are the whole cell."""
    cell = re.sub(r"<[^>]+>", "", cell).strip()
    return [cell] if cell.isdecimal() else re.findall(r"(?<![\w.])\d+\.\d+M?(?!\w)", cell)


def rendered_rows(path: Path, separator: str) -> Iterator[tuple[dict[str, str | None], list[str]]]:
    """(names, numbers) of each row of numbers in a rendering, in order."""
    names: dict[str, str | None] = {}
    lines = [line for line in path.read_text().splitlines() if separator in line]
    # The collapsed lines of Pascal VOC grow: the last one holds all that the others do.
    collapsed = [line for line in lines if "PASCAL V" in line]
    for line in (line for line in lines if line not in collapsed[:-1]):
        cells = [cell.strip() for cell in line.split(separator)]
        names["label"] = None
        if separator == "\t":  # the name of a method stands in the middle of its rows
            names["method"] = None
        for text in (text for cell in cells for text in (cell, *cell.split(" - "))):
            if (name := NAMES.get(text.casefold())) is not None:
                names[name[0]] = name[1]
        columns = [found for cell in cells if (found := numbers(cell))]
        if line in collapsed:
            *columns, last = columns
            yield from (({}, [number]) for number in last[:2])
            columns, names = [*columns, last[2:]], {}
        for row in zip(*columns, strict=True):
            yield dict(names), list(row)


def printed(row: PublishedRow, cls_dim: bool) -> list[str]:
    first = [str(row.cls_dim)] if cls_dim and row.cls_dim else []
    return [*first, *([row.parameters] if row.parameters else []), *row.percents.values()]


@pytest.mark.parametrize("name", RENDERINGS)
def test_every_number_of_every_rendering(shared: Path, name: str):
    separator, tables = RENDERINGS[name]
    rendered = list(rendered_rows(shared / "paper" / name, separator))
    rows = [row for table in tables for row in published_rows(table)]
    rows = [row for row in rows if LOST.get(name) != (row.dataset, row.method)]
    assert [values for _, values in rendered] == [printed(row, cls_dim=name != "paper.md") for row in rows]
    for (names, _), row in zip(rendered, rows, strict=True):
        for kind, value in names.items():
            if value is not None and not (kind == "method" and not row.method):
                assert getattr(row, kind) == value, (names, row)


def test_disagreements_quote_the_renderings(shared: Path):
    """`right` is the rendering to believe: one of them, `"both"` or `"neither"`; a rendering may say nothing."""
    for entry in json.loads(Path(__file__).with_name("disagreements.json").read_text(encoding="utf-8")):
        for name, quotes in entry["quotes"].items():
            text = (shared / "paper" / name).read_text()
            assert [quote for quote in quotes if quote not in text] == [], entry["where"]
        assert entry["right"] in (*RENDERINGS, "both", "neither")


def test_tables_agree_with_each_other():
    seen: dict[tuple[str, str, str, str], PublishedRow] = {}
    for row in (row for table in TABLES for row in published_rows(table)):
        key = (row.dataset, row.network, row.head, row.method)
        assert seen.setdefault(key, row).percents == row.percents, key
    repeated = [row for table in TABLES for row in published_rows(table) if row.head == "ca" and row.method]
    assert len(repeated) == 3 * 8  # table 1 and supplementary 1, 2: two each; supplementary 4, 5: the same again


@pytest.mark.parametrize(
    ("table", "head", "fields"),
    [
        ("supp-table3", "ca", {}),
        ("supp-table3", "proj_ca", {"block": "proj_ca"}),
        ("supp-table4", "ca", {}),
        *[("supp-table4", f"from_s{stage}", {"start_stage": stage}) for stage in range(1, 5)],
        ("supp-table5", "ca", {}),
        ("supp-table5", "class_specific", {"num_queries": 1000}),
    ],
)
def test_parameters_are_those_of_our_streams(table: str, head: str, fields: dict):
    def build() -> tuple[castream.Backbone, castream.CrossAttentionStream]:
        backbone = castream.create_backbone("resnet50", rngs=nnx.Rngs(0))
        return backbone, castream.CrossAttentionStream(backbone.stage_dims, rngs=nnx.Rngs(0), **fields)

    backbone, stream = nnx.eval_shape(build)
    counted = (backbone, stream) if table == "supp-table5" else (stream,)
    count = sum(leaf.size for module in counted for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))
    (row,) = [row for row in published_rows(table) if row.head == head and row.parameters]
    assert row.exact_parameters == count
    assert row.cls_dim in (None, stream.cls_token.shape[1])
    # Printed with two decimals; 6.96M and 6.29M are cut off rather than rounded, see disagreements.json.
    assert abs(float(row.parameters.removesuffix("M")) - count / 1e6) < (
        0.01 if row.parameters in ("6.96M", "6.29M") else 0.005
    )


@pytest.mark.parametrize("stage", range(5))
def test_placements_print_the_parameters_without_biases(stage: int):
    dims = (64, 256, 512, 1024, 2048)
    stream = nnx.eval_shape(
        lambda: castream.CrossAttentionStream(dims, start_stage=stage, use_bias=False, rngs=nnx.Rngs(0))
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(stream, nnx.Param)))
    printed_rows = [row for row in published_rows("supp-table4") if row.parameters]
    assert printed_rows[stage].parameters == f"{count / 1e6:.2f}M"


def test_an_unknown_table_is_refused():
    with pytest.raises(ValueError, match="The paper has no 'table2': choose from table1, supp-table1"):
        published_rows("table2")
