"""The folder of one experiment: every path in it, and how its files are read. Nothing here waits for JAX."""

import dataclasses
import json
import os
from pathlib import Path
import re
import shlex
from typing import Any

from castream_jax.experiment.config import Config, open_config
from castream_jax.runtime.bucket_folder import fetch, names_in, open_folder

_AGAIN = "remove it, and run `castream evaluate` again"


class _Below:
    """A path below the folder; of a folder in a bucket, what is there is fetched, and what is `beside` it."""

    def __init__(self, path: str, *, beside: str = "", fetched: bool = True):
        self._path, self._beside, self._fetched = path, beside, fetched

    def __get__(self, workdir: "Workdir", owner: type | None = None) -> Path:
        if self._beside:
            fetch(workdir.folder / self._beside)
        path = workdir.folder / self._path
        return fetch(path) if self._fetched else path


class _BelowResults:
    """A path among the results of the protocol that the workdir is seen under."""

    def __init__(self, path: str = ""):
        self._path = path

    def __get__(self, workdir: "Workdir", owner: type | None = None) -> Path:
        folder = f"evaluation/under-{workdir.protocol}" if workdir.protocol else "evaluation"
        path = workdir.folder / folder / self._path
        return fetch(path) if self._path else path


@dataclasses.dataclass(frozen=True)
class Workdir:
    """Every path in the folder of one experiment. Other modules do not spell the names.

    >>> Workdir.at("/runs/digits").summary
    PosixPath('/runs/digits/evaluation/summary.json')

    Attributes:
        folder: absolute path: Orbax, given a relative one, fails in a thread after `save` has returned. Of a folder in
            a bucket it is the scratch copy, see `castream_jax.runtime.bucket_folder`.
        protocol: name of a further protocol, whose results lie apart; empty for that of `config.evaluation.protocol`.
    """

    folder: Path
    protocol: str = ""

    config = _Below("config.json", beside="imports")
    classes = _Below("classes.json")  # names of the classes, in the order of their numbers
    origins = _Below("origins.json")  # where what a training reads from outside came from
    kept_weights = _Below("weights")  # the file that the backbone's weights came from

    # --- training ---
    training_lock = _Below(".training.lock", fetched=False)
    checkpoints = _Below("checkpoints", fetched=False)
    damaged_checkpoints = _Below("damaged-checkpoints", fetched=False)
    logs = _Below("logs", fetched=False)  # TensorBoard's events, traces
    metrics = _Below("logs/metrics.jsonl")
    wandb_id = _Below("logs/wandb_id")
    backbone = _Below("export/backbone.safetensors")  # of a training of the backbone itself

    # --- evaluation ---
    evaluation_lock = _Below(".evaluation.lock", fetched=False)
    evaluation = _BelowResults()
    run = _BelowResults("run.json")
    rows = _BelowResults("rows")
    predictions = _BelowResults("predictions")
    gallery_parts = _BelowResults("gallery")
    gallery = _BelowResults("gallery.npz")
    curves = _BelowResults("curves.parquet")
    class_scores = _BelowResults("class_scores.parquet")
    sanity = _BelowResults("sanity.json")
    summary = _BelowResults("summary.json")
    earlier = _BelowResults("earlier")  # results of other runs, each in a folder called by the run's hash

    # --- report ---
    @property
    def report(self) -> Path:
        return self.folder / "report" / (f"under-{self.protocol}.html" if self.protocol else "index.html")

    @property
    def report_table(self) -> Path:
        return self.folder / "report" / (f"under-{self.protocol}.md" if self.protocol else "table.md")

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> "Workdir":
        """The workdir at `path`, a folder or an address in a bucket, which need not exist."""
        return path if isinstance(path, cls) else cls(open_folder(path))

    def under(self, protocol: str) -> "Workdir":
        """The same workdir with the results of a further protocol, by its name."""
        return dataclasses.replace(self, protocol=re.sub(r"[^\w.=+-]+", "-", protocol))

    @property
    def further_protocols(self) -> list["Workdir"]:
        """The workdir under each further protocol that has been evaluated."""
        results = self.folder / "evaluation"
        for name in names_in(results):
            if name.startswith("under-"):
                fetch(results / name / "summary.json")
        found = sorted(results.glob("under-*/summary.json"))
        return [dataclasses.replace(self, protocol=path.parent.name.removeprefix("under-")) for path in found]

    @property
    def results(self) -> tuple[Path, ...]:
        """What an evaluation leaves, in the order of removal: a summary never stands beside parts of another run."""
        made = (self.summary, self.sanity, self.curves, self.class_scores, self.gallery)
        return (*made, self.gallery_parts, self.predictions, self.rows)

    def __fspath__(self) -> str:
        return str(self.folder)

    def __str__(self) -> str:
        return f"{self.folder}"  # of a folder in a bucket, its address

    def check_experiment(self, then: str = "first") -> None:
        """Raises a FileNotFoundError unless a training was begun here; `then` says what comes after one."""
        if self.config.is_file():
            return
        around = next((path for path in self.folder.parents if Workdir(path).config.is_file()), None)
        if around is not None and self.folder.is_dir():
            raise FileNotFoundError(f"{self} is a part of the workdir {around}: give that folder.")
        train = f"castream train --config FILE --workdir {shlex.quote(str(self))}"
        raise FileNotFoundError(f"{self} holds no experiment: run `{train}` {then}.")

    def open_config(self) -> Config:
        """The config of the training; a field that is younger than the workdir has its default.

        Raises:
            FileNotFoundError: if no training was begun here.
        """
        self.check_experiment()
        return open_config(self.config)

    def read_class_names(self) -> tuple[str, ...] | None:
        """Names of the classes as the training numbers them; None in a workdir of an older release."""
        if not self.classes.is_file():
            return None
        names, count = _read_json(self.classes), self.read_config()["backbone"]["num_classes"]
        if not isinstance(names, list) or len(names) != count:
            raise ValueError(f"{self.classes} must name the {count} classes of the backbone: restore it from a copy.")
        return tuple(names)

    def read_origins(self) -> dict[str, dict[str, str]]:
        """Where what the training read from outside came from, by field of the config; empty in older workdirs."""
        return _read_json(self.origins) if self.origins.is_file() else {}

    def read_config(self) -> dict[str, Any]:
        """The config as it was written, as plain values."""
        return _read_json(self.config)

    def read_summary(self) -> dict[str, Any]:
        """What the evaluation found.

        Raises:
            FileNotFoundError: if there was none.
        """
        self.check_experiment("and then `castream evaluate`")
        if not self.summary.is_file():
            raise FileNotFoundError(
                f"No evaluation to report: {self.summary} is missing; "
                f"run `castream evaluate --workdir {shlex.quote(str(self))}` first."
            )
        summary = _read_json(self.summary, _AGAIN)
        if not {"heads", "metrics", "protocol"} <= set(summary):
            raise ValueError(f"{self.summary} is damaged (it lacks its results): {_AGAIN}.")
        return summary

    def read_run(self) -> dict[str, Any]:
        """What the results in `evaluation/` belong to: `hash`, `part_size`, `identity`; empty if there are none."""
        return _read_json(self.run, _AGAIN) if self.run.is_file() else {}


def _read_json(path: Path, remedy: str = "restore it from a copy") -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): {remedy}.") from error
