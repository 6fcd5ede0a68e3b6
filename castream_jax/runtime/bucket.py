"""Addresses in buckets (`gs://…`, `s3://…`): who speaks to them, and what goes wrong there, in one sentence.

Needs the extra `buckets`: `pip install 'castream_jax[buckets]'`. Credentials are found as the clouds' own tools find
them; `AWS_ENDPOINT_URL` names another server that speaks S3.
"""

from collections.abc import Iterator
import contextlib
import os
from typing import Any, NamedTuple


class _Cloud(NamedTuple):
    """The package that speaks to a store, where credentials come from, and the variable that names another server."""

    package: str
    credentials: str
    server: str


_CLOUDS = {
    "s3://": _Cloud(
        "s3fs",
        "AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the role of this machine",
        "AWS_ENDPOINT_URL",
    ),
    "gs://": _Cloud(
        "gcsfs",
        "`gcloud auth application-default login`, or the service account of this machine",
        "STORAGE_EMULATOR_HOST",
    ),
}


def is_bucket(path: str | os.PathLike[str]) -> bool:
    """Whether this is an address in a bucket, and no path.

    >>> is_bucket("s3://bucket/run"), is_bucket("/runs/digits")
    (True, False)
    """
    return os.fspath(path).startswith(tuple(_CLOUDS))


def file_system(address: str) -> Any:
    """What reads and writes objects at `address`: an `fsspec.AbstractFileSystem` that remembers no listing.

    Raises:
        ValueError: its package is not installed.
    """
    package = _CLOUDS[_scheme(address)].package
    try:
        import fsspec

        return fsspec.filesystem(_scheme(address).removesuffix("://"), use_listings_cache=False)
    except ImportError as error:
        raise ValueError(f"{address} needs the package {package}: pip install 'castream_jax[buckets]'.") from error


@contextlib.contextmanager
def in_one_sentence(address: str) -> Iterator[None]:
    """Raises what goes wrong as an OSError with what to do.

    Raises:
        FileNotFoundError: there is no such bucket.
        PermissionError: there are no credentials, or they are not enough.
        ConnectionError: the bucket cannot be reached.
        OSError: anything else that the server refuses.
    """
    bucket, cloud = address.split("/")[2], _CLOUDS[_scheme(address)]
    try:
        yield
    except FileExistsError:
        raise
    except Exception as error:  # each package has errors of its own, of which many are no OSErrors
        reason = " ".join(str(error).split()).rstrip(".")[:160] or type(error).__name__
        kinds = {kind.__name__ for one in (error, error.__cause__) for kind in type(one).__mro__}
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(
                f"There is no bucket {bucket}, which {address} names: make it, or correct the address."
            ) from error
        if any("Credential" in kind or "RefreshError" in kind for kind in kinds):
            raise PermissionError(
                f"There are no credentials for {address} ({reason}): give {cloud.credentials}."
            ) from error
        if isinstance(error, PermissionError):
            raise PermissionError(
                f"{address} may not be read and written with these credentials ({reason}): give others: "
                f"{cloud.credentials}."
            ) from error
        if kinds & {"ConnectionError", "TimeoutError", "HTTPClientError", "ClientConnectionError"}:
            raise ConnectionError(
                f"{address} cannot be reached ({reason}): check the network, or {cloud.server} where it is set."
            ) from error
        raise OSError(f"{address} refused what was asked of it ({reason}).") from error


def _scheme(address: str) -> str:
    return f"{address.partition('://')[0]}://"
