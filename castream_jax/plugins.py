"""Python code from outside the package: other distributions' entry points, single files, and what lies beside a config.

An entry point of one of the groups below names a module, which registers backbones, attribution methods or data sources
when it is imported:

    [project.entry-points."castream_jax.methods"]
    brightness = "my_package.brightness"

A file that `import_file` is given does the same.
"""

from collections.abc import Iterator, Mapping
import contextlib
import functools
import importlib
import importlib.abc
from importlib.machinery import ModuleSpec
import importlib.metadata
import importlib.util
import os
from pathlib import Path
import sys
import traceback
from types import ModuleType
from typing import NamedTuple
import warnings

GROUPS = ("castream_jax.backbones", "castream_jax.methods", "castream_jax.sources")


@functools.cache
def load_plugins(group: str) -> None:
    """Imports the entry points of a group, once in a process.

    A registry calls it before it says that it does not know a name, or lists its names: nobody else waits for plugins.
    One that cannot be imported is warned of, by the name of its distribution, and the others are loaded all the same.
    """
    for entry in importlib.metadata.entry_points(group=group):
        try:
            entry.load()
        except Exception as error:  # whatever another distribution's code may raise
            distribution = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"
            reason = " ".join(str(error).split())
            warnings.warn(
                f"The plugin {entry.name!r} ({group}) of {distribution} cannot be used "
                f"({type(error).__name__}: {reason}): update or uninstall that distribution.",
                stacklevel=2,
            )


class Imported(NamedTuple):
    """A file that was imported, and the content of the files of its folder that this took, by their names in it."""

    file: Path
    contents: Mapping[str, bytes]


_IMPORTED: dict[str, Imported] = {}  # by the name of the module


def import_file(path: str | os.PathLike[str]) -> Imported:
    """Imports a Python file, which registers what it adds, once in a process; it may import what lies beside it.

    The module has the file's name, and its folder comes last in `sys.path`: worker processes find it there. A copy with
    the same content is the same module; where Python would have found the copy, the file's folder comes before it.

    Raises:
        ValueError: if there is no such file, its name is another module's, or it cannot be imported.
    """
    file = Path(path).expanduser().resolve()
    if not file.is_file() or file.suffix != ".py":
        raise ValueError(f"There is no Python file {path} to import: give the path of a .py file.")
    name = file.stem
    if name in _IMPORTED:
        _check_same(file, _IMPORTED[name])
        return _IMPORTED[name]
    importlib.invalidate_caches()
    with _spec_errors(file):
        found = importlib.util.find_spec(name)
    if found is not None and not _is_same(found, file):
        raise ValueError(f"{file} has the name of another module, {found.origin or name}: rename it.")
    before, folder = set(sys.modules), str(file.parent)
    sys.path.insert(0, folder)
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever the file may raise
        raise ValueError(located(error, file)) from error
    except SystemExit as error:
        raise ValueError(f"{file} ends the process: call sys.exit below `if __name__ == '__main__':` only.") from error
    finally:
        sys.path.remove(folder)
    beside = Path(found.origin).resolve().parent if found is not None and found.origin else None
    places = [place for place, entry in enumerate(sys.path) if beside is not None and Path(entry).resolve() == beside]
    sys.path.insert(min(places, default=len(sys.path)), folder)
    files = [Path(getattr(module, "__file__", None) or "") for key, module in sys.modules.items() if key not in before]
    files = [file, *(other for other in files if other.suffix == ".py" and file.parent in other.parents)]
    _IMPORTED[name] = Imported(file, {str(one.relative_to(file.parent)): one.read_bytes() for one in files})
    return _IMPORTED[name]


def _is_same(found: ModuleSpec, file: Path) -> bool:
    """Whether what Python finds under a file's name is the file or, not imported yet, a copy of it."""
    origin = Path(found.origin or "").resolve()
    if origin == file:
        return True
    return file.stem not in sys.modules and origin.is_file() and origin.read_bytes() == file.read_bytes()


def _check_same(file: Path, imported: Imported) -> None:
    for name, content in imported.contents.items():
        other = file.parent / name
        if file != imported.file and not (other.is_file() and other.read_bytes() == content):
            raise ValueError(
                f"{other} and {imported.file.parent / name}, which is imported already, differ, and are one module: "
                "give one of them, or rename one."
            )


@contextlib.contextmanager
def _spec_errors(file: Path) -> Iterator[None]:
    """A module such as `__main__` has a name and nothing that could be found by it."""
    try:
        yield
    except (ValueError, ImportError) as error:
        raise ValueError(f"{file} has the name of another module: rename it.") from error


def located(error: Exception, file: Path) -> str:
    """What went wrong in code that begins in `file`: the file, the reason, the line."""
    reason = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}: {reason} (line {error.lineno})."
    summary = traceback.extract_tb(error.__traceback__)
    frames = [(Path(frame.filename).resolve(), frame.lineno) for frame in summary if "<" not in frame.filename[:1]]
    here = [frame for frame in frames if frame[0] == file.resolve()]
    if not isinstance(error, ValueError | OSError):  # a mistake of the code itself, wherever it is
        here = [frame for frame in frames if file.resolve().parents[0] in frame[0].parents] or here
    if not isinstance(error, ValueError | OSError | SyntaxError | ImportError | NameError | AttributeError | TypeError):
        reason = f"{type(error).__name__}: {reason}"
    where, line = here[-1] if here else (file, None)
    return f"{where}: {reason.rstrip('.')}{f' (line {line})' if line else ''}."


# Of each folder, its modules while they are out of sight, and when their files were changed.
_NEIGHBOURS: dict[Path, tuple[dict[str, ModuleType], dict[str, float]]] = {}


class _Finder(importlib.abc.MetaPathFinder):
    """Finds modules by their files before any other finder does."""

    def __init__(self, files: Mapping[str, Path]):
        self.files = files

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        file = self.files.get(fullname)
        return importlib.util.spec_from_file_location(fullname, file) if file else None


@contextlib.contextmanager
def neighbours(file: Path) -> Iterator[None]:
    """Makes what lies beside a file importable: modules and packages, and the `common.py` of the folder above.

    Afterwards all names are what they were: another folder has modules of its own. Each is loaded once in a process,
    unless its file changes.
    """
    folder = file.resolve().parent
    beside = {path.stem: path for path in folder.glob("*.py")} | {
        path.parent.name: path for path in folder.glob("*/__init__.py")
    }
    files = {"common": folder.parent / "common.py"} if (folder.parent / "common.py").is_file() else {}
    files |= {name: path for name, path in beside.items() if name not in _IMPORTED}
    files = {name: path for name, path in files.items() if name not in (*sys.stdlib_module_names, "castream_jax")}
    finder = _Finder(files)

    def take() -> dict[str, ModuleType]:
        return {name: sys.modules.pop(name) for name in tuple(sys.modules) if name.partition(".")[0] in files}

    before = take()
    kept, times = _NEIGHBOURS.get(folder, ({}, {}))
    sys.modules.update(kept if _times(kept) == times else {})
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        kept = take()
        _NEIGHBOURS[folder] = kept, _times(kept)
        sys.modules.update(before)


def _times(modules: Mapping[str, ModuleType]) -> dict[str, float]:
    """When the file of each was changed; nothing where it is no more."""
    files = {name: Path(getattr(module, "__file__", None) or "") for name, module in modules.items()}
    return {name: file.stat().st_mtime_ns for name, file in files.items() if file.is_file()}
