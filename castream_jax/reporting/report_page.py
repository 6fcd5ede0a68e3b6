"""One experiment's page: reads its workdir, writes `report/index.html` and `report/table.md`."""

from collections.abc import Mapping, Sequence
from importlib import resources
import json
from pathlib import Path
import shlex
from typing import Any

import jinja2
from markupsafe import Markup
import numpy as np

from castream_jax.drawing.causal_curves import causal_charts
from castream_jax.drawing.line_chart import legend_of
from castream_jax.drawing.overlay import OPACITY
from castream_jax.drawing.titles import head_title, method_title
from castream_jax.reporting.differences import difference_rows
from castream_jax.reporting.extreme_cases import extreme_cases
from castream_jax.reporting.gallery import Gallery, build_gallery
from castream_jax.reporting.measured_curves import read_causal_curves, training_curves
from castream_jax.reporting.metric_table import (
    METRICS,
    MetricRow,
    columns_of,
    markdown_table,
    ordered_heads,
    ordered_methods,
    table_rows,
)
from castream_jax.reporting.templates import html_environment
from castream_jax.runtime.atomic_files import write_atomically


def write_report(workdir: Path, compare: Sequence[Path] = ()) -> Path:
    """Writes the page of an evaluated experiment, one file that needs no network, and its table in Markdown.

    Args:
        workdir: directory with `config.json` and `evaluation/summary.json`. `logs/metrics.jsonl`,
            `evaluation/curves.parquet` and `evaluation/gallery.npz` each add a section, and `evaluation/rows/` the
            gallery's numbers.
        compare: other evaluated workdirs, to stand beside this one in a section of their own.

    Returns:
        Path of `report/index.html`.

    Raises:
        FileNotFoundError: an experiment has not been evaluated.
        ValueError: a workdir is to be compared with itself.
    """
    workdir = Path(workdir)
    evaluation = workdir / "evaluation"
    config, *others = (_read_config(path) for path in (workdir, *map(Path, compare)))
    summary = json.loads((evaluation / "summary.json").read_text(encoding="utf-8"))
    name = config.get("name") or workdir.resolve().name
    comparison = None
    if compare:
        from castream_jax.reporting.side_by_side import compare_experiments  # statistics come with all of JAX

        names = [name, *(c.get("name") or Path(path).resolve().name for c, path in zip(others, compare, strict=True))]
        comparison = compare_experiments([workdir, *map(Path, compare)], names)
    heads = ordered_heads(summary)
    curves = read_causal_curves(evaluation / "curves.parquet")
    table = table_rows(summary)
    gallery = _gallery(evaluation, summary)
    shown = {card.anchor for card in gallery.cards} if gallery else set()
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            config=config,
            config_json=json.dumps(config, indent=2),
            name=name,
            comparison=comparison,
            compared=" ".join(shlex.quote(str(path)) for path in compare),
            summary=summary,
            workdir=shlex.quote(str(workdir)),
            columns=columns_of(summary),
            metrics=METRICS,
            table=together(table),
            has_baselines=any(row.is_baseline for row in table),
            differences=difference_rows(summary),
            training=training_curves(workdir / "logs" / "metrics.jsonl", heads),
            causal=causal_charts(curves, heads, ordered_methods(summary)) if curves else {},
            extremes=extreme_cases(evaluation / "rows", summary, shown),
            gallery=gallery,
        )
    )
    report = workdir / "report"
    report.mkdir(parents=True, exist_ok=True)
    write_atomically(report / "table.md", markdown_table(summary))
    write_atomically(report / "index.html", page)
    return report / "index.html"


def _read_config(workdir: Path) -> dict[str, Any]:
    if not (workdir / "evaluation" / "summary.json").is_file():
        raise FileNotFoundError(
            f"No evaluation to report: {workdir / 'evaluation' / 'summary.json'} is missing; "
            f"run `castream evaluate --workdir {shlex.quote(str(workdir))}` first."
        )
    return json.loads((workdir / "config.json").read_text(encoding="utf-8"))


def together(table: Sequence[MetricRow]) -> list[list[MetricRow]]:
    """Each row of values with the differences below it."""
    units: list[list[MetricRow]] = []
    for row in table:
        if row.is_difference:
            units[-1].append(row)
        else:
            units.append([row])
    return units


def _environment() -> jinja2.Environment:
    environment = html_environment("castream_jax.reporting")
    environment.filters["head_title"] = head_title
    environment.filters["method_title"] = method_title
    environment.filters["legend_of"] = legend_of
    environment.filters["settings"] = _settings
    environment.filters["correlation"] = lambda value: "–" if value is None else f"{value:.3f}".replace("-", "−")
    environment.globals["zip"] = zip
    # These files belong to the package, so they need no escaping.
    folder = resources.files("castream_jax.reporting")
    for name, file in (("style", "report.css"), ("script", "report.js")):
        environment.globals[name] = Markup(folder.joinpath(file).read_text(encoding="utf-8"))
    environment.globals["opacity"] = OPACITY
    return environment


def _gallery(evaluation: Path, summary: Mapping[str, Any]) -> Gallery | None:
    if not (evaluation / "gallery.npz").is_file():
        return None
    with np.load(evaluation / "gallery.npz", allow_pickle=False) as archive:
        # Read each array once: an NpzFile decompresses anew at every access.
        return build_gallery({key: archive[key] for key in archive.files}, evaluation / "rows", summary)


def _settings(fields: Mapping[str, Any]) -> str:
    """`block ca, start stage 0` from a flat part of the configuration."""
    told = {key: value for key, value in fields.items() if (key, value) != ("learning_rate", 0)}  # 0: everyone's
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in told.items() if value is not None)
