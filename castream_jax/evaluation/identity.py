"""What the results in a folder belong to: kept and continued if they are of this very run, replaced if not."""

from collections.abc import Callable, Sequence
import hashlib
import json
from pathlib import Path
import shutil
from typing import Any

from flax import nnx
import jax
import numpy as np

from castream_jax.backbones import fingerprint
from castream_jax.data import Source
from castream_jax.experiment.config import Config
from castream_jax.model import Model
from castream_jax.protocol import Protocol
from castream_jax.runtime.atomic_files import write_atomically
from castream_jax.version import __version__

Identity = dict[str, Any]

# Fields of config.data that decide the pixels of a test image; the names of all images stand beside them.
_DATA_FIELDS = ("source", "test_split", "image_size", "resize", "difficult", "seed")

# In the order of removal: a summary must never stand beside the parts of another run.
_RESULTS = (
    "summary.json",
    "sanity.json",
    "curves.parquet",
    "class_scores.parquet",
    "gallery.npz",
    "gallery",
    "predictions",
    "rows",
)


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
        "heads": digests_of_heads(model),
        "methods": list(methods),
        "data": {field: config.data[field] for field in _DATA_FIELDS}
        # Left out where it is off, as in results that are older than the option.
        | ({"exif_orientation": True} if config.data.exif_orientation else {})
        | {"images": len(source), "names": _digest([*source.class_names, *names])},
        "max_images": config.evaluation.max_images,
        "curves": config.evaluation.curves,
    }


def digests_of_heads(model: Model) -> dict[str, str]:
    """SHA-256 over the names and bytes of every head's parameters."""
    return {name: _digest_of_arrays(nnx.to_pure_dict(nnx.state(head))) for name, head in model.heads.items()}


def claim_results(folder: Path, identity: Identity, part_size: int, say: Callable[[str], None]) -> None:
    """Makes `folder` hold results of this run alone, and `run.json`, which says so.

    Args:
        folder: `evaluation/` of a workdir.
        identity: see `identify`.
        part_size: images per part; parts that are there keep the size they were begun with.
        say: tells the person who waits that old results are replaced.
    """
    folder.mkdir(exist_ok=True)
    there = json.loads((folder / "run.json").read_text()) if (folder / "run.json").exists() else None
    if there is None or there["identity"] != identity:
        if there is not None:
            old = there["identity"]
            fields = [field for field in identity if old.get(field) != identity[field]]
            say(f"{folder} holds the results of another run, which differs in {', '.join(fields)}: replacing them")
        for name in _RESULTS:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        run = {"hash": hash_of(identity), "part_size": part_size, "identity": identity}
        write_atomically(folder / "run.json", json.dumps(run, indent=2) + "\n")
    for name in ("gallery", "predictions", "rows"):
        (folder / name).mkdir(exist_ok=True)
        for unfinished in (folder / name).glob(".*"):  # of a killed process
            unfinished.unlink()


def part_size_of(folder: Path) -> int:
    """Images per part of the results in `folder`."""
    return json.loads((folder / "run.json").read_text())["part_size"]


def hash_of(identity: Identity) -> str:
    """12 hexadecimal digits over an identity."""
    return _digest([json.dumps(identity, sort_keys=True)])[:12]


def _digest(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _digest_of_arrays(tree: Any) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree):
        value = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {value.dtype} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
