"""Exports on Hugging Face's hub. Needs the extra `hub`: `pip install 'castream_jax[hub]'`.

`HF_ENDPOINT` names another hub, `HF_TOKEN` (or `hf auth login`) who asks, `HF_HOME` where downloads are kept.
"""

from collections.abc import Iterator
import contextlib
import os
from pathlib import Path
from types import ModuleType

from castream_jax.exporting.description import DESCRIPTION_FILE, read_description
from castream_jax.runtime.bucket_folder import fetch, names_in, open_folder
from castream_jax.version import __version__

_ADDRESS = "hf://"


def local_folder(address: str | os.PathLike[str], *, endpoint: str | None = None) -> Path:
    """The folder of an export: the path itself or, of `hf://user/repository[@revision]` or an address in a bucket, what
    was downloaded from it.

    Raises:
        ImportError: if it is an address, and huggingface_hub is not installed.
        FileNotFoundError: if there is no such repository or revision.
        ConnectionError: if the hub cannot be reached.
        ValueError: if it is no address.
    """
    text = os.fspath(address)
    if not text.startswith(_ADDRESS):
        folder = open_folder(address)
        return fetch(folder) if DESCRIPTION_FILE in names_in(folder) else folder
    repo_id, _, revision = text.removeprefix(_ADDRESS).partition("@")
    if repo_id.count("/") != 1 or not all(repo_id.split("/")):
        raise ValueError(
            f"{text} is no address of a model: write hf://user/repository or hf://user/repository@revision."
        )
    hub = _huggingface_hub()
    with _in_one_sentence(hub, repo_id, revision):
        return Path(
            hub.snapshot_download(
                repo_id,
                revision=revision or None,
                endpoint=endpoint or _endpoint(),
                library_name="castream_jax",
                library_version=__version__,
            )
        )


def push_to_hub(
    directory: str | os.PathLike[str],
    repo_id: str,
    *,
    revision: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Uploads an export as one commit; makes the repository if there is none.

    Args:
        directory: of an export.
        repo_id: `user/repository`.
        revision: branch; by default the main one.
        private: of a repository that is made.
        token: who uploads; by default who is logged in.
        endpoint: of another hub.

    Returns:
        Address of the commit.

    Raises:
        ImportError, FileNotFoundError, ConnectionError: as `local_folder`; and if `directory` holds no model.
    """
    folder = fetch(open_folder(directory))
    read_description(folder)
    hub = _huggingface_hub()
    api = hub.HfApi(
        endpoint=endpoint or _endpoint(), token=token, library_name="castream_jax", library_version=__version__
    )
    with _in_one_sentence(hub, repo_id, revision or ""):
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            commit_message=f"Export of castream_jax {__version__}",
            delete_patterns="*",  # files of an earlier export that this one has not
        )
    return str(commit.commit_url)


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None  # which huggingface_hub reads when it is imported, and never again


def _huggingface_hub() -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise ImportError(
            "Hugging Face's hub needs the package huggingface_hub: pip install 'castream_jax[hub]'."
        ) from error
    return huggingface_hub


@contextlib.contextmanager
def _in_one_sentence(hub: ModuleType, repo_id: str, revision: str) -> Iterator[None]:
    """Raises what goes wrong as an error of Python's own, in one sentence."""
    errors = hub.errors
    try:
        yield
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"{repo_id} on the hub has no revision {revision!r}: check its branches.") from error
    except errors.RepositoryNotFoundError as error:  # GatedRepoError is one
        raise FileNotFoundError(
            f"There is no repository {repo_id} on the hub, or it is private: check the name, or `hf auth login`."
        ) from error
    except errors.HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no name of a repository: write user/repository.") from error
    except errors.HfHubHTTPError as error:
        reason = " ".join(str(error).split())[:200]
        raise ConnectionError(f"The hub refused what was asked of {repo_id} ({reason}).") from error
    # The HTTP client is another one in each of its major releases; its own error inherits from the client's.
    except (OSError, errors.LocalEntryNotFoundError, *errors.HfHubHTTPError.__bases__) as error:
        raise ConnectionError(
            f"The hub could not be reached for {repo_id} ({type(error).__name__}), and nothing of it was downloaded "
            "before: check the network, or HF_ENDPOINT."
        ) from error
