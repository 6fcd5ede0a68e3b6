"""The paper's numbers: every table of paper and supplementary, as printed.

`published.csv` has a row per printed row, in the order of print. Where renderings of the paper differ, and which one is
right, is recorded beside the tests that compare all of them: `tests/reproduce/disagreements.json`.
"""

import csv
from functools import cache
from importlib import resources
from typing import NamedTuple

TABLES = {
    "table1": "Interpretability metrics of CA-Stream vs. baseline GAP on ImageNet",
    "supp-table1": "Interpretability metrics of CA-Stream vs. baseline GAP for more networks on ImageNet",
    "supp-table2": "Accuracy or mAP, and interpretability metrics, on CUB-200-2011 and Pascal VOC 2012",
    "supp-table3": "Different cross attention blocks",
    "supp-table4": "Effect of stream placement",
    "supp-table5": "Class agnostic vs. class specific representation",
}

PERCENTS = ("AD", "AG", "AI", "I", "D", "accuracy", "mAP")


class PublishedRow(NamedTuple):
    """One printed row.

    Attributes:
        table: key of `TABLES`.
        dataset, network: where it was measured.
        head: name of the pooling in our configs: `"gap"`, or a stream.
        label: the paper's name of it, such as `"S1–S4"`.
        method: attribution method, as `castream.attribute` calls it; empty in rows of accuracy and parameters.
        percents: `{"AD", "AG", "AI", "I", "D", "accuracy" or "mAP": percent}`, those that the row has, as printed.
        parameters: as printed, such as `"6.96M"`; empty if there are none.
        exact_parameters: what was counted, which the printed number abbreviates.
        cls_dim: channels of the CLS token, where printed.
    """

    table: str
    dataset: str
    network: str
    head: str
    label: str
    method: str
    percents: dict[str, str]
    parameters: str
    exact_parameters: int | None
    cls_dim: int | None


def published_rows(table: str) -> tuple[PublishedRow, ...]:
    """The rows of one table, in the order of print.

    Raises:
        ValueError: for an unknown table.
    """
    if table not in TABLES:
        raise ValueError(f"The paper has no {table!r}: choose from {', '.join(TABLES)}.")
    return tuple(row for row in _all_rows() if row.table == table)


@cache
def _all_rows() -> tuple[PublishedRow, ...]:
    text = resources.files("castream_jax.reproduce").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(
        PublishedRow(
            **{key: row[key] for key in ("table", "dataset", "network", "head", "label", "method")},
            percents={key: row[key] for key in PERCENTS if row[key]},
            parameters=row["parameters"],
            exact_parameters=int(row["exact_parameters"]) if row["exact_parameters"] else None,
            cls_dim=int(row["cls_dim"]) if row["cls_dim"] else None,
        )
        for row in csv.DictReader(text.splitlines())
    )
