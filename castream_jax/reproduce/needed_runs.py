"""From the names of tables and figures to the trainings that they need: configs, and the folder of each."""

from collections.abc import Sequence
import os
from pathlib import Path
from typing import NamedTuple

from castream_jax.experiment.config import Config, open_config, override
from castream_jax.experiment.workdir import Workdir
from castream_jax.reproduce.paper_experiments import EXPERIMENTS, TARGETS
from castream_jax.runtime.local_path import local_path

# Folders looked for in DATA, by source; where there is none, DATA itself is the dataset.
_FOLDERS = {"imagenet": "imagenet", "cub": "cub", "voc": "voc", "indoor67": "indoor67", "image_folder": "cifar10"}


class Options(NamedTuple):
    """How the configs are opened.

    Attributes:
        form: form of all configs: empty for the paper's, `"small"` for one on small data.
        data: folder that holds the datasets, each in a folder of its name, or the one dataset that is needed.
        configs: folder of the configs; by default the one beside the package.
        overrides: `--config.field=value`, for every config.
    """

    form: str = ""
    data: str = ""
    configs: str | os.PathLike[str] | None = None
    overrides: Sequence[str] = ()


class Training(NamedTuple):
    """A config and the folder it is trained in."""

    config: Config
    workdir: Workdir


class Run(NamedTuple):
    """One experiment in one form.

    Attributes:
        name: key of `EXPERIMENTS`.
        label: file and form of its config.
        backbone: what to train before; None if the backbone's weights are there.
        main: the streams.
        serves: names of the experiments whose numbers come from it.
    """

    name: str
    label: str
    backbone: Training | None
    main: Training
    serves: tuple[str, ...]

    def is_for(self, target: str) -> bool:
        """Whether a table or figure needs it."""
        return any(name in self.serves for name in TARGETS[target])


def open_runs(targets: Sequence[str], workdir: str | os.PathLike[str], options: Options) -> list[Run]:
    """The runs that the targets need.

    An experiment that is `within` a larger one is served by it where that is needed, too, or has been begun in this
    workdir: its streams are there, and the trunk's work is not done twice.

    Raises:
        ValueError: for an unknown target or form, or configs that are not there.
    """
    for target in targets:
        if target not in TARGETS:
            raise ValueError(f"There is no {target!r} to reproduce: choose from {', '.join(TARGETS)}.")
    folder = local_path(workdir)
    names = dict.fromkeys(name for target in targets for name in TARGETS[target])
    needed = [name for name in names if options.form not in EXPERIMENTS[name].without]
    for target in targets:
        if not set(TARGETS[target]) & set(needed):
            raise ValueError(
                f"{target} has no form {options.form!r}: give another after the colon, or none for the paper's."
            )
    serves: dict[str, list[str]] = {}
    for name in needed:
        larger = EXPERIMENTS[name].within
        begun = (_workdir(folder, experiment, options.form).folder.exists() for experiment in (larger, name))
        is_within = larger in needed or (larger and tuple(begun) == (True, False))
        serves.setdefault(larger if is_within else name, []).append(name)
    return [_open_run(name, folder, options, tuple(served)) for name, served in serves.items()]


def open_experiment(name: str, options: Options) -> Config:
    """The config `name`, pointed at its dataset and its weight file where they lie in the folder `data`."""
    file = (Path(options.configs) if options.configs else _default_configs()) / f"{name}.py"
    config = override(open_config(f"{file}:{options.form}" if options.form else file), options.overrides)
    source, weights = config.data.source, config.backbone.weights
    if options.data and source in _FOLDERS and not config.data.path:
        inside = Path(options.data) / _FOLDERS[source]
        config.data.path = str(inside if inside.is_dir() else options.data)
    if options.data and weights and (Path(options.data) / weights).is_file():
        config.backbone.weights = str(Path(options.data) / weights)
    return config


def _open_run(name: str, folder: Path, options: Options, serves: tuple[str, ...]) -> Run:
    main, backbone = Training(open_experiment(name, options), _workdir(folder, name, options.form)), None
    form = EXPERIMENTS[name].backbone_form
    if form and not options.form:
        backbone = Training(open_experiment(name, options._replace(form=form)), _workdir(folder, name, form))
        main.config.backbone.weights = str(backbone.workdir.backbone)
    return Run(name, f"{name}:{options.form}" if options.form else name, backbone, main, serves)


def _workdir(folder: Path, name: str, form: str) -> Workdir:
    return Workdir(folder / "-".join([*name.split("/"), *([form] if form else [])]))


def _default_configs() -> Path:
    folder = Path(__file__).parents[2] / "configs"
    if not (folder / "imagenet").is_dir():
        raise ValueError(
            "The paper's configs are not installed with the package: give --configs=PATH, the folder configs/ of the "
            "repository."
        )
    return folder
