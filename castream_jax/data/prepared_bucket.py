"""Prepared data in a bucket: their reader wants files on a disk, so each is fetched once, and kept in the cache."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any

import filelock

from castream_jax.data.prepared_files import BEGUN, MANIFEST, file_hash, read_manifest
from castream_jax.runtime.atomic_files import replacing
from castream_jax.runtime.bucket import file_system, in_one_sentence, is_bucket
from castream_jax.runtime.cache_folder import cache_folder
from castream_jax.runtime.progress import Progress

_AT_ONCE = 8  # files on their way


def local_manifest(path: str | os.PathLike[str]) -> Path:
    """The folder of prepared data; of an address in a bucket, one in the cache that holds the manifest.

    Data that are prepared anew at the same address have another one.

    Raises:
        FileNotFoundError: there are none, or they are not finished.
        OSError, ValueError: see `in_one_sentence` and `file_system`.
    """
    if not is_bucket(path):
        return Path(path)
    address = os.fspath(path).rstrip("/")
    files = file_system(address)
    with in_one_sentence(address):
        there = {name.rpartition("/")[2] for name in files.find(address, maxdepth=1)}
        manifest = files.cat_file(f"{address}/{MANIFEST}") if MANIFEST in there else None
    if manifest is None:
        if BEGUN in there:
            raise FileNotFoundError(f"'{address}' is not finished: copy all of the prepared folder, {MANIFEST} last")
        raise FileNotFoundError(
            f"no prepared data in '{address}', which would hold {MANIFEST}: copy the --out of `castream data prepare` "
            "there"
        )
    name = hashlib.sha256(address.encode() + b"\n" + manifest).hexdigest()[:24]
    folder = cache_folder() / "prepared" / name
    if not (folder / MANIFEST).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / MANIFEST) as temporary:
            temporary.write_bytes(manifest)
    return folder


def local_split(path: str | os.PathLike[str], split: str) -> Path:
    """The folder of prepared data; of an address in a bucket, one in the cache that holds the files of a split.

    Processes of one machine fetch them once.

    Raises:
        ValueError: a file in the bucket is not what was written.
        FileNotFoundError, OSError: see `local_manifest`.
    """
    folder = local_manifest(path)
    entry = read_manifest(folder)["splits"].get(split)
    if not is_bucket(path) or entry is None:  # which who opens it says
        return folder
    with filelock.FileLock(folder / ".lock"):
        missing = {name: noted for name, noted in entry["files"].items() if not _is_whole(folder / name, noted)}
        if missing:
            _fetch(os.fspath(path).rstrip("/"), folder, missing)
    return folder


def _is_whole(path: Path, noted: Mapping[str, Any]) -> bool:
    """What is there was compared with its hash when it came."""
    return path.is_file() and path.stat().st_size == noted["bytes"]


def _fetch(address: str, folder: Path, missing: Mapping[str, Mapping[str, Any]]) -> None:
    files = file_system(address)

    def fetch(name: str) -> None:
        with replacing(folder / name) as temporary:
            with in_one_sentence(f"{address}/{name}"), contextlib.suppress(FileNotFoundError):
                files.get_file(f"{address}/{name}", str(temporary))
            if file_hash(temporary) != missing[name]["sha256"]:
                raise ValueError(
                    f"'{address}/{name}' is not what was written: copy it again from where it was prepared"
                )

    size = sum(noted["bytes"] for noted in missing.values())
    progress = Progress("data", total=len(missing), unit="files")
    progress.say(f"fetching {size / 1e6:,.0f} MB of {address} to {folder}")
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for done, _ in enumerate(threads.map(fetch, missing), 1):
            progress.pace(done)
