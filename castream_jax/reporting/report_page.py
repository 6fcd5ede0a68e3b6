"""One experiment's page: reads its workdir, writes `report/index.html` and `report/table.md`."""

from collections.abc import Mapping, Sequence
import dataclasses
from importlib import resources
import json
import os
from pathlib import Path
import shlex
from typing import Any

import jinja2
from markupsafe import Markup

from castream_jax.drawing.attention_scale import scale_marks
from castream_jax.drawing.causal_curves import causal_charts
from castream_jax.drawing.line_chart import legend_of
from castream_jax.drawing.overlay import OPACITY
from castream_jax.drawing.titles import head_title, method_title
from castream_jax.experiment.results import read_arrays
from castream_jax.experiment.workdir import Workdir
from castream_jax.reporting.differences import difference_rows
from castream_jax.reporting.extreme_cases import extreme_cases
from castream_jax.reporting.gallery import Gallery, build_gallery
from castream_jax.reporting.in_words import UNCHANGED, in_words
from castream_jax.reporting.measured_curves import read_causal_curves, training_curves
from castream_jax.reporting.metric_table import (
    LOCALISATION,
    METRICS,
    MetricRow,
    columns_of,
    localisation_rows,
    markdown_table,
    ordered_heads,
    ordered_methods,
    table_rows,
)
from castream_jax.reporting.recognition_tables import recognition_tables
from castream_jax.reporting.reproducing import evaluate_command
from castream_jax.reporting.sanity_table import sanity_table
from castream_jax.reporting.templates import html_environment
from castream_jax.runtime.atomic_files import write_atomically
from castream_jax.runtime.bucket_folder import Place, as_given
from castream_jax.runtime.progress import Progress


def write_report(workdir: str | os.PathLike[str], compare: Sequence[str | os.PathLike[str]] = ()) -> Place:
    """Writes the page of an evaluated experiment, one file that needs no network, and its table in Markdown.

    Args:
        workdir: of an evaluated experiment. The training's log, mean curves and the gallery each add a section, and
            the rows of the evaluation the gallery's numbers.
        compare: other evaluated workdirs, to stand beside this one in a section of their own.

    Returns:
        Path of the page; in a bucket, its address.

    Raises:
        FileNotFoundError: an experiment has not been evaluated.
        ValueError: a workdir is to be compared with itself.
    """
    workdir, others = Workdir.at(workdir), [Workdir.at(path) for path in compare]
    summary, *_ = (w.read_summary() for w in (workdir, *others))
    config = workdir.read_config()
    name = config.get("name") or workdir.folder.name
    comparison = None
    if compare:
        from castream_jax.reporting.side_by_side import compare_experiments  # statistics come with all of JAX

        names = [name, *(other.read_config().get("name") or other.folder.name for other in others)]
        comparison = compare_experiments([w.folder for w in (workdir, *others)], names)
        for label, conflicts in comparison.conflicts.items():
            if conflicts:
                differ = "; ".join(f"{one.what}: {one.first}, there {one.other}" for one in conflicts)
                Progress("report", total=0, unit="files").say(f"{label} is not fully comparable ({differ})")
    heads = ordered_heads(summary)
    curves = read_causal_curves(workdir.curves)
    table = table_rows(summary)
    shared = _without_folders(config)
    gallery = _gallery(workdir, summary)
    shown = {card.anchor for card in gallery.cards} if gallery else set()
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            config=config,
            config_json=json.dumps(shared, indent=2),
            in_words=in_words(summary),
            sanity=sanity_table(summary, config),
            unchanged_above=UNCHANGED,
            recognition=recognition_tables(workdir.predictions, summary),
            marks=scale_marks(),
            name=name,
            comparison=comparison,
            compared=" ".join(shlex.quote(other.folder.name) for other in others),
            summary=summary,
            workdir=shlex.quote(workdir.folder.name),
            evaluate=evaluate_command(summary, workdir.read_run(), config, workdir.folder.name),
            other_protocols=_other_protocols(workdir),
            columns=columns_of(summary),
            metrics=METRICS,
            table=together(table),
            localisation_columns=LOCALISATION,
            localisation=together(localisation_rows(summary)),
            has_baselines=any(row.is_baseline for row in table),
            differences=difference_rows(summary),
            training=training_curves(workdir.metrics, heads),
            causal=causal_charts(curves, heads, ordered_methods(summary)) if curves else {},
            extremes=extreme_cases(workdir.rows, summary, shown),
            gallery=gallery,
        )
    )
    workdir.report.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(workdir.report_table, markdown_table(summary))
    write_atomically(workdir.report, page)
    return as_given(workdir.report)


def _other_protocols(workdir: Workdir) -> dict[str, str]:
    """Pages of the same workdir under the other protocols of its evaluation: name, and address from this page."""
    every = (dataclasses.replace(workdir, protocol=""), *workdir.further_protocols)
    return {
        other.read_summary()["protocol"]["name"]: other.report.name
        for other in every
        if other != workdir and other.summary.is_file()
    }


def together(table: Sequence[MetricRow]) -> list[list[MetricRow]]:
    """Each row of values with the differences below it."""
    units: list[list[MetricRow]] = []
    for row in table:
        if row.is_difference:
            units[-1].append(row)
        else:
            units.append([row])
    return units


def _without_folders(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the names alone of files and folders: a page that is sent tells nobody where its author works."""

    def name(value: Any) -> Any:
        return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value

    def shared(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: shared(inner) for key, inner in value.items()}
        return [name(inner) for inner in value] if isinstance(value, list) else name(value)

    return {key: shared(value) for key, value in config.items()}


def _environment() -> jinja2.Environment:
    environment = html_environment("castream_jax.reporting")
    environment.filters["head_title"] = head_title
    environment.filters["method_title"] = method_title
    environment.filters["legend_of"] = legend_of
    environment.filters["settings"] = _settings
    environment.globals["zip"] = zip
    # These files belong to the package, so they need no escaping.
    folder = resources.files("castream_jax.reporting")
    for name, file in (("style", "report.css"), ("script", "report.js")):
        environment.globals[name] = Markup(folder.joinpath(file).read_text(encoding="utf-8"))
    environment.globals["opacity"] = OPACITY
    return environment


def _gallery(workdir: Workdir, summary: Mapping[str, Any]) -> Gallery | None:
    if not workdir.gallery.is_file():
        return None
    return build_gallery(read_arrays(workdir.gallery), workdir.rows, summary)


def _settings(fields: Mapping[str, Any]) -> str:
    """`block ca, start stage 0` from a flat part of the configuration."""
    told = {key: value for key, value in fields.items() if (key, value) != ("learning_rate", 0)}  # 0: everyone's
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in told.items() if value is not None)
