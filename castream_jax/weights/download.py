"""Published weights: downloaded once, checked, converted to safetensors and kept in the cache folder."""

from collections.abc import Iterator
import contextlib
import hashlib
import os
from pathlib import Path
import time

import filelock
import requests

from castream_jax.runtime.cache_folder import cache_folder
from castream_jax.runtime.progress import Progress
from castream_jax.weights.entries import PACKAGED_WEIGHTS, WEIGHTS_URL, published_file, published_sha256
from castream_jax.weights.files import read_weights, write_safetensors
from castream_jax.weights.packaged import packaged_file

_TIMEOUT = 30.0  # seconds without an answer or another byte
_CHUNK = 1 << 14  # bytes; of a transfer that breaks off, the last incomplete chunk is lost
_REPORT_EVERY = 2.0  # seconds


def fetch_weights(name: str, entry: str) -> Path:
    """The published weights `entry` of architecture `name`, as a safetensors file under torchvision's tensor names.

    The first call downloads the published file, continuing where an interrupted one stopped, compares its SHA-256 with
    the published one and converts it, running none of its code; a published file that was put into the folder by
    hand is used in place of a download. Later calls find the converted file and need no network; the published one
    may then be deleted.

    Several processes may call at once: one works, under a lock on a file in the folder, and the others wait for its
    result. The operating system releases that lock when its holder dies, however it dies.

    Args:
        name: architecture, for example `"resnet50"`.
        entry: torchvision's name of the weights, in any case, for example `"imagenet1k_v1"`.

    Raises:
        ValueError: if there is no such entry, if the file's SHA-256 is another than the published one (the file is
            then deleted), or if it holds no weights.
        ConnectionError: if the file cannot be downloaded; the message names it, its URL and the folder.
    """
    if entry.lower() in PACKAGED_WEIGHTS.get(name, ()):
        return packaged_file(name, entry.lower())
    published = cache_folder() / published_file(name, entry)
    converted = published.with_suffix(".safetensors")
    if converted.is_file():
        return converted
    published.parent.mkdir(parents=True, exist_ok=True)
    with _only_one_process(published.with_suffix(".lock"), published.name):
        if not converted.is_file():
            if published.is_file():
                _check_hash(published, published.name)
            else:
                _download(published)
            write_safetensors(read_weights(published), converted)
            _part(published).unlink(missing_ok=True)
    return converted


@contextlib.contextmanager
def _only_one_process(path: Path, file_name: str) -> Iterator[None]:
    lock = filelock.FileLock(path)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        Progress(file_name, total=1, unit="file").say("another process is fetching it: waiting")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _download(published: Path) -> None:
    """Puts the file into its folder when all of it is there; a transfer that broke off is continued."""
    url = f"{(os.environ.get('CASTREAM_WEIGHTS_URL') or WEIGHTS_URL).rstrip('/')}/{published.name}"
    _transfer(url, _part(published))
    _check_hash(_part(published), url)
    os.replace(_part(published), published)


def _part(published: Path) -> Path:
    return published.with_name(f"{published.name}.part")


def _transfer(url: str, part: Path) -> None:
    """Appends to `part` what it lacks of the file at `url`."""
    done = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    total = 0
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if response.status_code == requests.codes.range_not_satisfiable and done:
                return  # all of it is there
            if not response.ok:
                raise _no_download(url, part, f"the server answers {response.status_code} {response.reason}")
            continued = response.status_code == requests.codes.partial_content
            done = done if continued else 0
            total = done + int(response.headers.get("Content-Length", 0))
            progress = Progress(url.rsplit("/", 1)[-1], total=round(total / 1e6), unit="MB")
            reported = time.monotonic()
            with part.open("ab" if continued else "wb") as file:
                for chunk in response.iter_content(_CHUNK):
                    file.write(chunk)
                    done += len(chunk)
                    if total and time.monotonic() - reported > _REPORT_EVERY:
                        reported = time.monotonic()
                        progress.report(round(done / 1e6))
    except requests.Timeout as error:
        raise _no_download(url, part, f"no answer within {_TIMEOUT:g} s") from error
    except requests.RequestException as error:
        reason = f"it broke off after {done:,} of {total:,} bytes" if total else "no connection"
        raise _no_download(url, part, f"{reason}, {type(error).__name__}") from error
    if done < total:  # older releases of urllib3 do not notice
        raise _no_download(url, part, f"it broke off after {done:,} of {total:,} bytes")


def _no_download(url: str, part: Path, reason: str) -> ConnectionError:
    return ConnectionError(
        f"{url} could not be downloaded ({reason}): try again, or put the file into {part.parent} by hand, "
        f"as {part.name.removesuffix('.part')}."
    )


def _check_hash(path: Path, source: str) -> None:
    """Deletes `path` and raises a ValueError if its SHA-256 is not the published one, as far as that is known."""
    expected = published_sha256(path.name.removesuffix(".part"))
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if not actual.startswith(expected):
        path.unlink()
        raise ValueError(
            f"{source} is damaged or another file: its SHA-256 begins with {actual[: len(expected)]}, should begin "
            f"with {expected}; {path} was deleted."
        )
