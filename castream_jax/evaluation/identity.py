"""What the results in a folder belong to: kept and continued if they are of this very run, replaced if not."""

from collections.abc import Callable, Iterator, Sequence
import hashlib
import json
from typing import Any

from flax import nnx
import jax
import numpy as np

from castream_jax.backbones import fingerprint
from castream_jax.data import Source
from castream_jax.data.content import content_digest
from castream_jax.data.source import open_record
from castream_jax.evaluation.replaced import is_set_aside, remove_results, set_aside, take_back
from castream_jax.experiment.config import Config
from castream_jax.experiment.workdir import Workdir
from castream_jax.model import Model
from castream_jax.protocol import Protocol
from castream_jax.runtime.atomic_files import write_json
from castream_jax.version import __version__

Identity = dict[str, Any]

# Fields of config.data that decide the pixels of a test image; the names of all images stand beside them.
_DATA_FIELDS = ("source", "test_split", "image_size", "resize", "difficult", "seed")


def identify(config: Config, source: Source, model: Model, methods: Sequence[str], protocol: Protocol) -> Identity:
    """Everything that decides the numbers, as plain values: results of equal identities may stand in one table.

    Args:
        config, source, model, protocol: of the evaluation.
        methods: all that are evaluated, baselines among them.
    """
    names = [source.name(i) for i in range(len(source))]
    return {
        "version": __version__,
        "protocol": protocol.hash,
        "trunk": fingerprint(model.backbone),
        "dtype": model.backbone.dtype,
        "heads": head_digests(model),
        "methods": list(methods),
        "data": {field: config.data[field] for field in _DATA_FIELDS}
        # Left out where it is off, as in results that are older than the option.
        | ({"exif_orientation": True} if config.data.exif_orientation else {})
        | {"images": len(source), "names": _digest([*source.class_names, *names])}
        | {"content": content_digest(source, sizes=True)},
        "max_images": config.evaluation.max_images,
        "curves": config.evaluation.curves,
        "localisation": "box" in open_record(source, 0),
    }


def head_digests(model: Model) -> dict[str, str]:
    """SHA-256 over the names and bytes of every head's parameters."""
    return {name: _array_digest(nnx.to_pure_dict(nnx.state(head))) for name, head in model.heads.items()}


def claim_results(workdir: Workdir, identity: Identity, part_size: int, say: Callable[[str], None]) -> None:
    """Makes the workdir hold results of this run alone, and `run.json`, which says so.

    Args:
        workdir: of a trained experiment.
        identity: see `identify`.
        part_size: images per part; parts that are there keep the size they were begun with.
        say: told where there are results of another run; see `replaced` for what becomes of these.
    """
    workdir.evaluation.mkdir(exist_ok=True, parents=True)
    run, own = workdir.read_run(), identity_hash(identity)
    if run and run["identity"] != identity:
        fields = list(_different(run["identity"], identity))
        say(
            f"{workdir.evaluation} holds the results of another run, which differs in {', '.join(fields)}: "
            f"they are kept in {workdir.earlier.name}/{run['hash']}"
        )
        set_aside(workdir)
        run = {}
        if is_set_aside(workdir, own):
            take_back(workdir, own)
            run = workdir.read_run()
    if not run:
        remove_results(workdir)  # whose they are is not known, where there was no run.json
        run = {"hash": own, "part_size": part_size, "identity": identity}
        write_json(workdir.run, run)
    for folder in (workdir.gallery_parts, workdir.predictions, workdir.rows):
        folder.mkdir(exist_ok=True)
        for unfinished in folder.glob(".*"):  # of a killed process
            unfinished.unlink()


def _different(there: Identity, here: Identity) -> Iterator[str]:
    """Fields that differ; of the data, which."""
    for field in here:
        if field == "data":
            yield from (
                f"data.{name}" for name, value in here[field].items() if there.get(field, {}).get(name) != value
            )
        elif there.get(field) != here[field]:
            yield field


def identity_hash(identity: Identity) -> str:
    """12 hexadecimal digits over an identity."""
    return _digest([json.dumps(identity, sort_keys=True)])[:12]


def _digest(texts: list[str]) -> str:
    # Names of files need not be UTF-8.
    return hashlib.sha256("\n".join(texts).encode(errors="surrogateescape")).hexdigest()


def _array_digest(tree: Any) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree):
        value = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {value.dtype} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
