"""Orbax checkpoints of one workdir: model, training state, data position and where they came from, saved as one."""

from collections.abc import Callable, Sequence
import json
import os
import shutil
from types import TracebackType
from typing import Any, Literal

import chex
import jax
from jax.experimental import multihost_utils
import orbax.checkpoint as ocp

from castream_jax.experiment.checkpoint_files import (
    CHECKSUMS,
    changed_file,
    is_written_alone,
    open_checkpointer,
    write_checksums,
)
from castream_jax.experiment.checkpoint_items import OLD_ITEM, checkpoint_items, old_arguments, state_of
from castream_jax.experiment.workdir import Workdir
from castream_jax.runtime.bucket_folder import (
    fetch,
    is_copy,
    look_again,
    move,
    remove,
    remove_there,
    remove_unfinished,
)

Which = Literal["last", "best"]

_MAKE_ROOM = "make room on the disk, and the same command continues"


class Checkpoints:
    """The `checkpoints/` folder of a workdir; a context manager that waits for what is still being written.

    `checkpoints/<step>/` holds the arrays of the `model` and, apart from them, those of its `training`, `about` (JSON:
    config, fingerprint of the backbone, position in the data, validation score) and the checksums of their files. It is
    written under a temporary name, in the background, and renamed when it is whole, so that a killed process leaves the
    previous one the newest. In a bucket, where nothing can be renamed, the checksums are sent last, and make it whole.
    The newest ones are kept, and the one with the best score. Process 0 writes; all of them read.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        fingerprint: str,
        config: str = "{}",
        validated_on: str | None = None,
        read_only: bool = False,
        max_to_keep: int = 2,
        say: Callable[[str], None] = lambda text: None,
    ):
        """Args:
        workdir: the experiment's folder.
        fingerprint: of the frozen backbone, which must be the same at saving and at restoring.
        config: JSON of the experiment's config, to be kept beside the state.
        validated_on: name of the split that scores are of; to be kept beside them.
        read_only: leave the folder as it is, down to what another process may be writing.
        max_to_keep: newest checkpoints kept.
        say: told when a checkpoint is passed over.
        """
        self._workdir = Workdir.at(workdir)
        self._folder = self._workdir.checkpoints
        self._fingerprint, self._config, self._validated_on = fingerprint, config, validated_on
        self._read_only, self._max_to_keep, self._say = read_only, max_to_keep, say
        self._checkpointer: ocp.AsyncCheckpointer | None = None
        self._writing: int | None = None
        look_again()
        if not read_only:
            if jax.process_index() == 0:
                remove_unfinished(self._folder, CHECKSUMS)
                self._folder.mkdir(exist_ok=True)
                for path in [*self._folder.glob("*.orbax-checkpoint-tmp*"), *self._folder.glob(".deleted-*")]:
                    shutil.rmtree(path)
            _barrier("checkpoints opened")
            self._checkpointer = open_checkpointer(self._folder, self._write_checksums)
        fetch(self._folder, marker=CHECKSUMS)

    @property
    def steps(self) -> list[int]:
        """Steps of the checkpoints that were written to the end, oldest first."""
        if not self._folder.is_dir():
            return []
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdigit())

    @property
    def latest_step(self) -> int | None:
        """Step of the newest one, None if there is none."""
        return max(self.steps, default=None)

    @property
    def best_step(self) -> int | None:
        """Step of the one with the best validation score, the newest of equals; None if none was validated.

        Scores of different splits cannot be compared: those count that are of the split validated on last.
        """
        validations = {
            step: validation for step in self.steps if (validation := self.validation_of(step))[0] is not None
        }
        if not validations:
            return None
        newest = validations[max(validations)][1]
        scores = {step: score for step, (score, split) in validations.items() if split == newest}
        return max(scores, key=lambda step: (scores[step], step))

    def save(self, step: int, state: Any, iterator: Any, score: float | None = None) -> None:
        """Starts writing `state` and the position of the grain `iterator`; returns before it is on disk.

        Args:
            step: number of the checkpoint.
            state: arrays, replicated over all devices: `params`, `stats`, and whatever else the training needs.
            iterator: its state is the number of batches handed out, which is the same in every process.
            score: of the validation at this step, the more the better.

        Raises:
            FloatingPointError: if the parameters are not finite; nothing is written.
            OSError: if this or the previous checkpoint cannot be written.
        """
        assert not self._read_only, "opened read-only"
        try:
            chex.assert_tree_all_finite(jax.device_get(state["params"]))
        except AssertionError as error:
            raise FloatingPointError(
                f"A parameter is not finite at step {step}; checkpoint {self.latest_step} in {self._folder} is intact."
            ) from error
        self.wait()
        about = {
            "trunk": self._fingerprint,
            "config": json.loads(self._config),
            "iterator": iterator.get_state(),
            "score": score,
            "validated_on": None if score is None else self._validated_on,
        }
        self._writing = step
        if self._checkpointer is None:
            return
        if is_written_alone(self._folder):
            state = jax.device_get(state)
        try:
            self._checkpointer.save(
                self._folder / str(step),
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardSave(item) for name, item in checkpoint_items(state).items()},
                    about=ocp.args.JsonSave(about),
                ),
            )
        except (OSError, ValueError) as error:  # tensorstore's errors are ValueErrors
            raise self._unwritten(error) from error

    def wait(self) -> None:
        """Returns when the checkpoint begun last is on disk, and those that it replaces are deleted.

        Raises:
            OSError: if it could not be written, for example to a full disk.
        """
        if self._writing is None:
            return
        try:
            if self._checkpointer is not None:
                self._checkpointer.wait_until_finished()
        except (OSError, ValueError) as error:
            raise self._unwritten(error) from error
        self._writing = None
        if jax.process_index() == 0:
            kept = {*self.steps[-self._max_to_keep :], self.best_step}
            for step in self.steps:
                if step not in kept:
                    # Renamed first: a process that is killed in between leaves no half of a checkpoint.
                    gone = self._folder / f".deleted-{step}"
                    (self._folder / str(step)).rename(gone)
                    shutil.rmtree(gone)
                    remove_there(self._folder / str(step), marker=CHECKSUMS)
        _barrier("checkpoint written")

    def restore(self, state: Any, iterator: Any = None, which: Which = "last") -> tuple[int, Any]:
        """The newest checkpoint that can be read; those that cannot are named, and moved aside.

        Args:
            state: arrays, or `ShapeDtypeStruct`s, with the shapes and shardings wanted; `params` and `stats` alone
                for a model without its training.
            iterator: grain iterator to move to where training stopped, if it is to go on.
            which: `"best"`: the one with the best validation score.

        Returns:
            Its step, and the state.

        Raises:
            FileNotFoundError: if there is no checkpoint, or none that was validated.
            ValueError: if none can be read, or it was made beside another backbone.
        """
        if which not in ("last", "best"):
            raise ValueError(f"config.evaluation.checkpoint must be 'last' or 'best', got {which!r}.")
        candidates = self.steps[::-1]
        if not candidates:
            raise FileNotFoundError(f"There is no checkpoint in {self._folder}: run `castream train` on it first.")
        if which == "best":
            best = self.best_step
            if best is None:
                raise FileNotFoundError(
                    f"No checkpoint in {self._folder} was validated: train with config.train.validate_every, "
                    "or evaluate the last one."
                )
            candidates = [best]
        damaged: dict[int, str] = {}
        for step in candidates:
            try:
                about, restored = self._read(step, state)
                if iterator is not None:
                    iterator.set_state(about["iterator"])
            except _AnotherBackboneError:
                raise
            except Exception as error:  # whatever Orbax, tensorstore and JSON make of broken files
                damaged[step] = _in_short(error)
            else:
                self._put_aside(damaged, step)
                return step, restored
        raise ValueError(
            f"Of {_listed(list(damaged))} in {self._folder} none can be read ({damaged[candidates[0]]}): "
            "move the folder away to train from the start."
        )

    def _read(self, step: int, state: Any) -> tuple[dict[str, Any], Any]:
        # Before Orbax reads: it would not see every changed bit, and leaves its other reads behind when one fails.
        folder = self._folder / str(step)
        changed = changed_file(folder)
        if changed:
            raise ValueError(f"{changed} is not what was written")
        about = self._about(step)
        if about["trunk"] != self._fingerprint:
            raise _AnotherBackboneError(
                f"The streams in {self._folder} were trained on another backbone (fingerprint {about['trunk'][:12]}, "
                f"not {self._fingerprint[:12]}): give the weights they were trained with, or another --workdir."
            )
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        items = {name: ocp.args.StandardRestore(item) for name, item in checkpoint_items(abstract).items()}
        if (folder / OLD_ITEM).is_dir():
            items = {OLD_ITEM: old_arguments(abstract)}
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            restored = checkpointer.restore(folder, args=ocp.args.Composite(**items))
        trees = state_of({key: tree for item in items for key, tree in restored[item].items()})
        if not all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(trees)):
            raise ValueError("it lacks arrays of this model")
        return about, trees

    def _write_checksums(self) -> None:
        """Called by Orbax, in its thread, when the files are written and have not yet their final name."""
        if jax.process_index() == 0:
            (temporary,) = self._folder.glob(f"{self._writing}.orbax-checkpoint-tmp*")
            write_checksums(temporary, self._folder / str(self._writing))

    def _about(self, step: int) -> dict[str, Any]:
        return json.loads((self._folder / str(step) / "about" / "metadata").read_text(encoding="utf-8"))

    def validation_of(self, step: int) -> tuple[float | None, str | None]:
        """Score of a checkpoint, and the split it is of; None where there is none."""
        try:
            about = self._about(step)
            # Older releases validated on the test split.
            config = about["config"]
            split = about.get("validated_on", config.get("data", {}).get("test_split", "test"))
            return about["score"], None if about["score"] is None else split
        except (OSError, ValueError, KeyError):
            return None, None

    def _put_aside(self, damaged: dict[int, str], restored: int) -> None:
        if not damaged:
            return
        reason = next(iter(damaged.values()))
        moved = ""
        if not self._read_only:
            aside = self._workdir.damaged_checkpoints
            if jax.process_index() == 0:
                aside.mkdir(exist_ok=True)
                for step in damaged:
                    remove(aside / str(step))
                    move(self._folder / str(step), aside / str(step))
            _barrier("damaged checkpoints put aside")
            moved = f" and moved to {aside}"
        self._say(f"{_listed(list(damaged))} cannot be read ({reason}): passed over for checkpoint {restored}{moved}")

    def _unwritten(self, error: Exception) -> OSError:
        step, self._writing = self._writing, None
        last = self.latest_step
        kept = f"checkpoint {last} is intact" if last is not None else "no earlier one was written"
        remedy = "the same command continues when it can be" if is_copy(self._folder) else _MAKE_ROOM
        return OSError(
            f"Checkpoint {step} could not be written to {self._folder} ({_in_short(error)}); {kept}: {remedy}."
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._read_only or isinstance(error, jax.errors.JaxRuntimeError):
            return  # another process has died: what waits for it waits for long
        try:
            self.wait()
        except OSError:
            if error is None:
                raise
        finally:
            if self._checkpointer is not None:
                self._checkpointer.close()


class _AnotherBackboneError(ValueError):
    """The checkpoint is whole, but belongs to another backbone."""


def _listed(steps: Sequence[int]) -> str:
    return f"checkpoint{'s' if len(steps) > 1 else ''} {', '.join(map(str, steps))}"


def _in_short(error: Exception) -> str:
    """The first words of an error, on one line; the cause's where there is one."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else f"{text[:117]}…"


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
        look_again()
