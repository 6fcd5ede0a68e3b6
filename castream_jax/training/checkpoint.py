"""Orbax checkpoints of one workdir: training state, data iterator and where they came from, saved as one."""

from pathlib import Path
from types import TracebackType
from typing import Any

import chex
import grain
import jax
import orbax.checkpoint as ocp


class Checkpoints:
    """The `checkpoints/` folder of a workdir; a context manager that waits for what is still being written.

    A step is written to a temporary name and renamed when it is whole, so a killed process leaves the previous
    checkpoint the newest.
    """

    def __init__(self, workdir: Path, *, trunk: str, read_only: bool = False, max_to_keep: int = 2):
        """Args:
        workdir: absolute path of the experiment's folder.
        trunk: fingerprint of the frozen trunk, which must be the same at saving and at restoring.
        read_only: leave the folder as it is, down to what another process may be writing.
        max_to_keep: newest checkpoints kept.
        """
        self._provenance = {"trunk": trunk}
        self._folder = workdir / "checkpoints"
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None if read_only else max_to_keep,
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            read_only=read_only,
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    @property
    def latest_step(self) -> int | None:
        """Step of the newest whole checkpoint, None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, iterator: Any) -> None:
        """Starts writing `state` and the position of the grain `iterator`; returns before it is on disk.

        Raises:
            FloatingPointError: if the parameters are not finite; nothing is written.
        """
        try:
            chex.assert_tree_all_finite(jax.device_get(state["params"]))
        except AssertionError as error:
            raise FloatingPointError(
                f"A parameter is not finite at step {step}; checkpoint {self.latest_step} in {self._folder} is intact."
            ) from error
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                data=grain.checkpoint.CheckpointSave(iterator),  # pyright: ignore[reportCallIssue]
                provenance=ocp.args.JsonSave(self._provenance),
            ),
        )

    def restore(self, state: Any, iterator: Any = None) -> tuple[int, Any]:
        """The newest checkpoint.

        Args:
            state: arrays, or `ShapeDtypeStruct`s, with the shapes and shardings wanted.
            iterator: grain iterator to move to where training stopped, if it is to go on.

        Returns:
            Its step, and the state.

        Raises:
            FileNotFoundError: if there is no checkpoint.
            ValueError: if it was made with another trunk.
        """
        step = self.latest_step if self._folder.exists() else None
        if step is None:
            raise FileNotFoundError(f"There is no checkpoint in {self._folder}: run `castream train` on it first.")
        there = self._manager.restore(step, args=ocp.args.Composite(provenance=ocp.args.JsonRestore()))["provenance"]
        if there != self._provenance:
            raise ValueError(
                f"The streams in {self._folder} were trained on another trunk (fingerprint {there['trunk'][:12]}, not "
                f"{self._provenance['trunk'][:12]}): give the weights they were trained with, or another --workdir."
            )
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        items: dict[str, Any] = {"state": ocp.args.StandardRestore(abstract)}
        if iterator is not None:
            items["data"] = grain.checkpoint.CheckpointRestore(iterator)  # pyright: ignore[reportCallIssue]
        return step, self._manager.restore(step, args=ocp.args.Composite(**items))["state"]

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._manager.wait_until_finished()
        self._manager.close()
