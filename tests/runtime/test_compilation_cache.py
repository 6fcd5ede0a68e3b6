"""Compiled programs on disk: the folder that is used, and what is dropped from it."""

# pyright: reportAttributeAccessIssue=false

import os

import jax
import pytest

from castream_jax.runtime.compilation_cache import _drop_oldest, use_compilation_cache


@pytest.fixture
def jax_cache(monkeypatch):
    """JAX's cache as it is by default; given back as it was."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.delenv("CASTREAM_COMPILATION_CACHE", raising=False)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_compilation_cache_can_be_moved_and_turned_off(tmp_path, monkeypatch, jax_cache):
    monkeypatch.setenv("CASTREAM_COMPILATION_CACHE", "off")
    assert use_compilation_cache() is None
    assert jax.config.jax_compilation_cache_dir is None
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("CASTREAM_COMPILATION_CACHE", str(tmp_path / "file" / "cache"))
    assert use_compilation_cache() is None
    monkeypatch.setenv("CASTREAM_COMPILATION_CACHE", str(tmp_path / "moved"))
    folder = use_compilation_cache()
    assert folder.parent == tmp_path / "moved"
    assert jax.config.jax_compilation_cache_dir == str(folder)
    monkeypatch.setenv("CASTREAM_COMPILATION_CACHE", str(tmp_path / "other"))
    assert use_compilation_cache() == folder  # what JAX has been told already stays
    assert not (tmp_path / "other").exists()


def test_the_oldest_programs_are_dropped(tmp_path):
    for age in range(5):
        path = tmp_path / f"{age}-cache"
        path.write_bytes(bytes(100))
        os.utime(path, (1000 - age, 1000 - age))
    _drop_oldest(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-cache", "1-cache"]
