# pyright: reportAttributeAccessIssue=false

from pathlib import Path
import pwd

import jax
import pytest

from castream_jax.runtime.cache_folder import cache_folder
from castream_jax.runtime.compilation_cache import use_compilation_cache


def test_the_folder_of_the_environment_comes_first(monkeypatch, tmp_path):
    monkeypatch.setenv("CASTREAM_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("CASTREAM_CACHE", "~/cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "cache"


def test_without_a_home_directory_nothing_is_kept_and_downloads_say_why(monkeypatch):
    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("HOME", "XDG_CACHE_HOME", "CASTREAM_CACHE", "CASTREAM_COMPILATION_CACHE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError):
        Path.home()
    with pytest.raises(
        FileNotFoundError, match=r"^There is no home directory .* environment variable CASTREAM_CACHE\.$"
    ):
        cache_folder()
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        assert use_compilation_cache() is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
