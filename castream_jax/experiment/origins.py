"""What a workdir needs from outside, so that it works from any folder, moved, and on another machine.

- The file of the backbone's weights, or the folder of an imported trunk, is copied into the workdir when training
  starts, unless it has a published name: a stream is worthless without its trunk. The copy is no larger than the
  checkpoints beside it. It is no hard link, which would change with a file that is written over in place.
- Data are not copied. `config.json` has their absolute path; `origins.json` has their path from the workdir, too, so
  that data and workdir may move together.
"""

from collections.abc import Sequence
import hashlib
import os
from pathlib import Path
import shutil

import jax

from castream_jax.backbones.imported_folder import is_imported
from castream_jax.experiment.config import Config
from castream_jax.experiment.workdir import Workdir
from castream_jax.runtime.atomic_files import replacing, write_json
from castream_jax.runtime.bucket_folder import fetch, is_copy, send
from castream_jax.weights.entries import BUNDLED_WEIGHTS, imagenet_entries
from castream_jax.weights.files import TRUNK_FILE, imported_name

_DATA, _WEIGHTS, _IMAGES = "data.path", "backbone.weights", "data"


def check_training_images(workdir: Workdir, digest: str) -> None:
    """Raises a ValueError unless the training data are those that the training was begun with.

    Args:
        workdir: one of an older release has nothing noted, and passes.
        digest: `content_digest` of the training data.
    """
    noted = workdir.read_origins().get(_IMAGES, {}).get("digest", digest)
    if noted != digest:
        raise ValueError(
            f"The training images are no more those that {workdir} was begun with (names, labels or content differ): "
            "put them back, or train in a new workdir."
        )


def keep_origins(config: Config, workdir: Workdir, class_names: Sequence[str], digest: str) -> None:
    """Copies the weights into the workdir, and notes where they and the data came from, and the names of the classes.

    What an earlier start has noted stays. Process 0 writes.

    Args:
        config: of the training, its paths as they are here.
        workdir: whose folder is made.
        class_names: in the order of their numbers; not noted of a distillation, whose images are of any classes.
        digest: `content_digest` of the training data.
    """
    if jax.process_index() != 0:
        return
    if not workdir.classes.is_file() and config.train.loss != "distillation":
        write_json(workdir.classes, list(class_names))
    if workdir.origins.is_file():
        return
    origins: dict[str, dict[str, str]] = {_IMAGES: {"digest": digest}}
    if (data := absolute(config.data.path)) != config.data.path or os.path.isabs(data):
        origins[_DATA] = {"path": data, "from_workdir": data if is_copy(workdir) else os.path.relpath(data, workdir)}
    file = weight_file(config)
    if file is not None:
        kept = workdir.kept_weights / file.name
        kept.parent.mkdir(exist_ok=True)
        if file.is_dir():
            shutil.copytree(file, kept, dirs_exist_ok=True)
            send(kept)
        else:
            with replacing(kept) as temporary:
                shutil.copyfile(file, temporary)
        origins[_WEIGHTS] = {
            "path": absolute(config.backbone.weights),
            "sha256": _sha256(kept),
            "kept": kept.relative_to(workdir).as_posix(),
        }
    write_json(workdir.origins, origins)


def config_in_place(config: Config, workdir: Workdir) -> Config:
    """The config with its paths where data and weights are now.

    A path that is not there is looked for: data where they lie from the workdir, weights in it; and, in a workdir of an
    older release, whose paths may be relative to an unknown folder, from the workdir and each folder above it.

    Raises:
        ValueError: if what was kept is not what it was, or a relative path can be several places.
    """
    here = config.copy_and_resolve_references()
    here.data.path = os.path.expanduser(config.data.path)
    if workdir.config.is_file():
        here.data.path = _find_data(here.data.path, workdir)
        here.backbone.weights = _find_weights(config, workdir)
    return here


def check_data(config: Config, workdir: Workdir) -> None:
    """Raises a FileNotFoundError if the data are no more where the workdir was trained with them."""
    path = config.data.path
    if path in workdir.read_origins().get(_DATA, {}).values() and not os.path.exists(path):
        raise FileNotFoundError(
            f"The data are not at {path}, where they were when {workdir} was trained: say where they are with "
            "--config.data.path=PATH."
        )


def with_absolute_paths(config: Config) -> Config:
    """The config with its paths independent of the current directory; the names of published weights stay."""
    there = config.copy_and_resolve_references()
    there.data.path = absolute(config.data.path)
    if weight_file(config) is not None:
        there.backbone.weights = absolute(config.backbone.weights)
        there.backbone.name = imported_name(config.backbone.weights) or config.backbone.name
    return there


def weight_file(config: Config) -> Path | None:
    """The file, or folder of an imported trunk, that the backbone is read from; None where neither is."""
    weights = config.backbone.weights
    if not weights or _is_name(config):
        return None
    path = Path(weights).expanduser()
    if is_imported(path):
        return path.resolve()
    path = path / TRUNK_FILE if path.is_dir() else path
    return path if path.is_file() else None


def absolute(path: str) -> str:
    """The absolute form of a path that exists; anything else as it is: it may be a name that a plugin understands."""
    expanded = os.path.expanduser(path)
    return os.path.abspath(expanded) if path and os.path.exists(expanded) else path


def _find_data(path: str, workdir: Workdir) -> str:
    if not path or os.path.exists(path):
        return path
    origin = workdir.read_origins().get(_DATA, {})
    if path in origin.values():
        moved = os.path.normpath(os.path.join(workdir, origin["from_workdir"]))
        return moved if os.path.exists(moved) else path
    return _from_above(path, workdir, "config.data.path")


def _find_weights(config: Config, workdir: Workdir) -> str:
    weights = config.backbone.weights
    if not weights or _is_name(config):
        return weights
    origin = workdir.read_origins().get(_WEIGHTS)
    there = weight_file(config) is not None
    if origin is None:
        return os.path.expanduser(weights) if there else _from_above(weights, workdir, "config.backbone.weights")
    same_place = absolute(weights) == origin["path"] or weights == origin["path"]
    # The command that trained names the weights by a path that may lead nowhere from here.
    if same_place or (not there and Path(weights).name == Path(origin["path"]).name):
        kept = fetch(workdir.folder / origin["kept"])
        if not kept.is_file() and not is_imported(kept):
            raise ValueError(
                f"{kept} is gone, the copy of the weights that {workdir} was trained with: put a file with the SHA-256 "
                f"{origin['sha256'][:12]}… there."
            )
        if (sha256 := _sha256(kept)) != origin["sha256"]:
            raise ValueError(
                f"{kept} is not what it was when the training started (its SHA-256 begins with {sha256[:12]}, not "
                f"{origin['sha256'][:12]}): put the file back."
            )
        return str(kept)
    return os.path.expanduser(weights)


def _from_above(path: str, workdir: Workdir, field: str) -> str:
    """A relative path in the workdir's config, from there or a folder above; as it is where it leads nowhere."""
    section, name = field.split(".")[1:]
    if os.path.isabs(path) or path != workdir.read_config()[section][name]:
        return path
    folders = (workdir.folder, *workdir.folder.parents)
    found = list(dict.fromkeys(str(folder / path) for folder in folders if (folder / path).exists()))
    if len(found) > 1:
        raise ValueError(
            f"{field}={path!r} of {workdir} can be {' or '.join(found)}: say which with --{field}=PATH, or run the "
            "command in the folder that it was trained from."
        )
    return found[0] if found else path


def _is_name(config: Config) -> bool:
    weights = config.backbone.weights
    bundled = any(weights in entries for entries in BUNDLED_WEIGHTS.values())
    return bundled or weights.lower() in imagenet_entries(config.backbone.name)


def _sha256(path: Path) -> str:
    """Of a file, or of the names and digests of the files of an imported trunk."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        return hashlib.sha256("\n".join(f"{file.name} {_sha256(file)}" for file in files).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
