"""`reproduce`: trains, evaluates and renders what tables and figures need.

Each experiment has a folder of its own in the workdir, and each step continues where it was interrupted: running the
same command again does what is missing.
"""

from collections.abc import Sequence
import os
from pathlib import Path

from flax import nnx
import jax

from castream_jax.backbones import Backbone, abstract_backbone
from castream_jax.data import open_source
from castream_jax.drawing.figure_files import save_figure
from castream_jax.drawing.titles import REFERENCE_HEAD
from castream_jax.evaluation import evaluate
from castream_jax.experiment.build import open_backbone, training_class_names
from castream_jax.experiment.config import Config
from castream_jax.experiment.restore import restore_model
from castream_jax.reproduce.cost import PlannedStep, data_size, evaluation_work, image_cost, training_work
from castream_jax.reproduce.map_figures import STREAM, write_figure
from castream_jax.reproduce.measured_figures import draw_curves, draw_placements, placements
from castream_jax.reproduce.needed_runs import Options, Run, Training, open_experiment, open_runs
from castream_jax.reproduce.paper_comparison import OurResult, compare
from castream_jax.reproduce.paper_experiments import EVALUATED_FIGURES, EXPERIMENTS, FIGURE_DATA
from castream_jax.reproduce.published import TABLES, published_rows
from castream_jax.reproduce.table_formats import write_table
from castream_jax.runtime.local_path import local_path
from castream_jax.runtime.progress import Progress
from castream_jax.training import train


def reproduce(targets: Sequence[str], workdir: str | os.PathLike[str], options: Options) -> list[Path]:
    """Trains and evaluates what is needed and not there yet; writes `tables/` and `figures/` of the workdir.

    Args:
        targets: keys of `TARGETS`.
        workdir: folder for everything that is made.
        options: which form, on which data.

    Returns:
        Paths of the tables, in Markdown, HTML, LaTeX and CSV, and of the figures, with their captions.

    Raises:
        ValueError, FileNotFoundError: for unknown targets, or configs, data or weights that cannot work, before any
            training; and as `train` and `evaluate`.
    """
    runs = open_runs(targets, workdir, options)
    shown = {target: open_experiment(name, options) for target, name in FIGURE_DATA.items() if target in targets}

    # --- all that can fail, before the first hour is spent ---
    for run in runs:
        for training in _trainings(run):
            names = open_source(training.config.data, "train").class_names
            open_source(training.config.data, "test", class_names=names)
        open_backbone(_trainings(run)[0].config)
    for config in shown.values():
        open_source(config.data, "test")

    # --- run by run; after each, the tables as far as they have come ---
    folder = local_path(workdir)
    say = Progress("reproduce", total=len(runs), unit="experiments").say
    paths: dict[str, list[Path]] = {}
    for number, run in enumerate(runs, 1):
        say(f"{number} of {len(runs)}: {run.main.config.name}, in {run.main.workdir}")
        for training in _trainings(run):
            train(training.config, training.workdir)
        if _is_evaluated(run, targets):
            evaluate(run.main.config, run.main.workdir)
        for target in (target for target in targets if run.is_for(target) and jax.process_index() == 0):
            if target in TABLES:
                results = _results([run for run in runs if run.is_for(target)], options)
                paths[target] = write_table(compare(target, results), folder / "tables")
            elif target in EVALUATED_FIGURES:
                paths[target] = _write_plot(target, run, folder / "figures", comparable=not options.form)
            else:
                model = restore_model(run.main.config, run.main.workdir)
                config = shown.get(target, run.main.config)
                # Other data than the model's have classes of their own.
                names = None if target in shown else training_class_names(run.main.config, run.main.workdir)
                paths[target] = write_figure(target, model, config, folder / "figures", run.label, names)
    return [path for target in targets for path in paths.get(target, [])]


def plan(targets: Sequence[str], workdir: str | os.PathLike[str], options: Options) -> list[PlannedStep]:
    """The steps that `reproduce` would take and what each costs, from the configs alone.

    Arguments as for `reproduce`; without `options.data`, the datasets have their published sizes.
    """
    steps = []
    for run in open_runs(targets, workdir, options):
        cost = image_cost(run.main.config)
        for training in _trainings(run):
            work = training_work(training.config, data_size(training.config), cost)
            steps.append(PlannedStep(run.label, work, _state(training, run)))
        if _is_evaluated(run, targets):
            work = evaluation_work(run.main.config, data_size(run.main.config), cost)
            steps.append(PlannedStep(run.label, work, "done" if run.main.workdir.summary.exists() else "to do"))
    return steps


def _trainings(run: Run) -> list[Training]:
    return [training for training in (run.backbone, run.main) if training is not None]


def _is_evaluated(run: Run, targets: Sequence[str]) -> bool:
    """Figures of a model need no evaluation."""
    return any((target in TABLES or target in EVALUATED_FIGURES) and run.is_for(target) for target in targets)


def _state(training: Training, run: Run) -> str:
    """How far a training is; only `train` knows its last step, so what follows it tells that it is done."""
    workdir = run.main.workdir
    followed = workdir.folder if training is run.backbone else workdir.summary
    if followed.exists():
        return "done"
    return "begun" if training.workdir.checkpoints.exists() else "to do"


def _results(runs: Sequence[Run], options: Options) -> dict[tuple[str, str], OurResult]:
    """The evaluations there are, by what the paper calls dataset and network."""
    return {
        (EXPERIMENTS[name].dataset, EXPERIMENTS[name].network): OurResult(
            " ".join([run.label, *options.overrides]),
            run.main.workdir.read_summary(),
            _count_backbone(run.main.config),
            comparable=not options.form,
        )
        for run in runs
        if run.main.workdir.summary.exists()
        for name in run.serves
    }


def _write_plot(target: str, run: Run, folder: Path, *, comparable: bool) -> list[Path]:
    summary = run.main.workdir.read_summary()
    if target == "fig-curves":
        figure = draw_curves(run.main.workdir.curves, summary, (REFERENCE_HEAD, STREAM))
        title = (
            "Mean probability of the class while pixels are restored to a blurred image (insertion) or removed "
            "(deletion), most salient first. Bands: 95 % intervals of the mean, by bootstrap over images."
        )
    else:
        # The class-specific stream, PROJ -> CA and several heads begin at S0, too, and are other ablations.
        start_stages = {
            name: fields.start_stage
            for name, fields in run.main.config.streams.items()
            if (fields.block, fields.class_specific, fields.num_heads) == ("ca", False, 1)
        }
        rows = published_rows("supp-table4") if comparable else ()
        published = {row.head: float(row.percents["accuracy"]) for row in rows if "accuracy" in row.percents}
        last_stage = len(_abstract_backbone(run.main.config).stage_dims) - 1
        figure = draw_placements(placements(summary, start_stages, last_stage, published), summary)
        title = (
            "Accuracy of streams from each stage to the last. Bars and band: 95 % intervals, by bootstrap over images."
        )
    protocol = summary["protocol"]
    caption = (
        f"{title} {summary['name']} ({run.label}), {summary['images']:,} images explained, accuracy over "
        f"{summary['accuracy_images']:,}; protocol {protocol['name']} ({protocol['hash']}), backbone fingerprint "
        f"{summary['trunk_fingerprint']}, run {summary['run']}."
    )
    return save_figure(figure, folder, target, [caption])


def _count_backbone(config: Config) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(_abstract_backbone(config), nnx.Param)))


def _abstract_backbone(config: Config) -> Backbone:
    name, num_classes, taps = config.backbone.name, config.backbone.num_classes, config.backbone.taps
    return abstract_backbone(name, num_classes, taps=taps)
