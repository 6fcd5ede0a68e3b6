"""The paper's numbers: every table of paper and supplementary, as printed.

`published.csv` has a row per printed row, in the order of print; `disagreements.json` says where the renderings of the
paper differ, and which one is right.
"""

import csv
from functools import cache
from importlib import resources
import json
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


class Disagreement(NamedTuple):
    """Where the renderings of the paper differ, or agree on what cannot be.

    Attributes:
        table, where: the place.
        quotes: what each rendering says there, word for word; nothing where it says nothing.
        right: the rendering to believe, `"both"` or `"neither"`.
        why: the reason.
    """

    table: str
    where: str
    quotes: dict[str, list[str]]
    right: str
    why: str


def published_rows(table: str) -> tuple[PublishedRow, ...]:
    """The rows of one table, in the order of print.

    Raises:
        ValueError: for an unknown table.
    """
    if table not in TABLES:
        raise ValueError(f"The paper has no {table!r}: choose from {', '.join(TABLES)}.")
    return tuple(row for row in _all_rows() if row.table == table)


def disagreements() -> tuple[Disagreement, ...]:
    """All that is known."""
    return tuple(Disagreement(**fields) for fields in json.loads(_read("disagreements.json")))


@cache
def _all_rows() -> tuple[PublishedRow, ...]:
    return tuple(
        PublishedRow(
            **{key: row[key] for key in ("table", "dataset", "network", "head", "label", "method")},
            percents={key: row[key] for key in PERCENTS if row[key]},
            parameters=row["parameters"],
            exact_parameters=int(row["exact_parameters"]) if row["exact_parameters"] else None,
            cls_dim=int(row["cls_dim"]) if row["cls_dim"] else None,
        )
        for row in csv.DictReader(_read("published.csv").splitlines())
    )


def _read(name: str) -> str:
    return resources.files("castream_jax.reproduce").joinpath(name).read_text(encoding="utf-8")
