"""Results of other runs: an evaluation takes nothing away from those before it.

Results of another run, with other methods, another protocol or another model, are moved to `evaluation/earlier/`, in a
folder called by that run's hash. The same settings find them again. An evaluation that fails before it has written a
part puts back what was there.
"""

from collections.abc import Iterator
import contextlib

import jax

from castream_jax.experiment.workdir import Workdir
from castream_jax.runtime.bucket_folder import move, remove


def set_aside(workdir: Workdir) -> None:
    """Moves the results and `run.json` to the folder of their run."""
    folder = workdir.earlier / workdir.read_run()["hash"]
    remove(folder)
    folder.mkdir(parents=True)
    for path in (*workdir.results, workdir.run):
        if path.exists():
            move(path, folder / path.name)


def take_back(workdir: Workdir, run: str) -> None:
    """Moves the results of the run with this hash back to where results are; there must be none."""
    folder = workdir.earlier / run
    for path in (*reversed(workdir.results), workdir.run):
        if (aside := folder / path.name).exists():
            move(aside, path)
    remove(folder)


def is_set_aside(workdir: Workdir, run: str) -> bool:
    """Whether there are earlier results of the run with this hash."""
    return (workdir.earlier / run / workdir.run.name).is_file()


@contextlib.contextmanager
def restoring_results(workdir: Workdir) -> Iterator[None]:
    """Puts back the results that were there if the block fails without having written a part.

    Of several processes, none puts anything back: another one may have written.
    """
    before = workdir.read_run().get("hash", "")
    try:
        yield
    except BaseException:
        nothing = not any(any(folder.glob("part-*")) for folder in (workdir.rows, workdir.predictions))
        if nothing and jax.process_count() == 1 and before and is_set_aside(workdir, before):
            remove_results(workdir)
            take_back(workdir, before)
            with contextlib.suppress(OSError):  # not empty: of other runs
                workdir.earlier.rmdir()
        raise


def remove_results(workdir: Workdir) -> None:
    """Removes what an evaluation leaves, and `run.json`, which says whose it is."""
    for path in (*workdir.results, workdir.run):
        remove(path)
