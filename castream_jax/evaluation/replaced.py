"""Results of another run, set aside until those that replace them are whole.

A second evaluation may be a mistake: one that fails before it has written a part takes nothing away, and one with the
settings of the first finds its results again.
"""

from collections.abc import Iterator
import contextlib
import shutil

import jax

from castream_jax.experiment.workdir import Workdir


def set_aside(workdir: Workdir) -> None:
    """Moves the results and `run.json` away, unless they are unfinished and finished ones are set aside already."""
    if workdir.replaced.is_dir() and not workdir.summary.is_file():
        return
    shutil.rmtree(workdir.replaced, ignore_errors=True)
    workdir.replaced.mkdir(parents=True)
    for path in (*workdir.results, workdir.run):
        if path.exists():
            path.rename(workdir.replaced / path.name)


def take_back(workdir: Workdir) -> None:
    """Puts what was set aside in the place of the results that are there."""
    remove_results(workdir)
    for path in (*reversed(workdir.results), workdir.run):
        if (aside := workdir.replaced / path.name).exists():
            aside.rename(path)
    shutil.rmtree(workdir.replaced)


@contextlib.contextmanager
def replacing_results(workdir: Workdir) -> Iterator[None]:
    """Removes what was set aside when the block has succeeded; takes it back if it fails without having written a part.

    Of several processes, none takes anything back: another one may have written.
    """
    try:
        yield
    except BaseException:
        nothing = not any(any(folder.glob("part-*")) for folder in (workdir.rows, workdir.predictions))
        if nothing and jax.process_count() == 1 and workdir.replaced.is_dir():
            take_back(workdir)
        raise
    if jax.process_index() == 0:
        shutil.rmtree(workdir.replaced, ignore_errors=True)


def remove_results(workdir: Workdir) -> None:
    """Removes what an evaluation leaves, and `run.json`, which says whose it is."""
    for path in (*workdir.results, workdir.run):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
