"""What the process says to XLA and to the allocator, when it is asked to, before JAX initialises a backend."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from castream_jax.runtime import cpu
from castream_jax.runtime.cpu import prepare_cpu

FLAG = "--xla_cpu_experimental_ynn_fusion_type"


def test_flags_are_added_to_those_of_the_user(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/tmp/x")
    prepare_cpu()
    prepare_cpu()  # once
    assert os.environ["XLA_FLAGS"] == f"--xla_dump_to=/tmp/x {FLAG}="


def test_the_users_choice_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XLA_FLAGS", f"{FLAG}=LIBRARY_FUSION_TYPE_DOT")
    prepare_cpu()
    assert os.environ["XLA_FLAGS"] == f"{FLAG}=LIBRARY_FUSION_TYPE_DOT"


def test_a_jaxlib_that_may_not_know_the_flag_is_told_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(cpu.jaxlib.version, "__version_info__", (0, 12, 0))
    prepare_cpu()
    assert "XLA_FLAGS" not in os.environ


def run(code: str) -> str:
    """What a process of its own prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("flags", [None, "", "--xla_dump_to=/tmp/x"])
def test_importing_the_package_changes_no_flags(flags: str | None, monkeypatch: pytest.MonkeyPatch):
    if flags is None:
        monkeypatch.delenv("XLA_FLAGS", raising=False)
    else:
        monkeypatch.setenv("XLA_FLAGS", flags)
    found = run("""
import os
import castream_jax
assert all(getattr(castream_jax, name) is not None for name in castream_jax.__all__)
import castream_jax.cli
print(repr(os.environ.get("XLA_FLAGS")))
""")
    assert found == f"{flags!r}\n"


COMMAND = "castream.cli.main(['reproduce', 'fig-curves', '--workdir', 'nowhere', '--dry-run'])"


@pytest.mark.parametrize("line", ["castream.prepare_cpu()", pytest.param(COMMAND, marks=pytest.mark.slow)])
def test_xlas_own_kernels_multiply_after_one_line_or_within_a_command(line: str, monkeypatch: pytest.MonkeyPatch):
    """Where JAX was imported first, too."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    hlo = run(f"""
import jax, jax.numpy as jnp
import castream_jax as castream, castream_jax.cli
{line}
x = jnp.ones((256, 256))
print(jax.jit(lambda x: x @ x).lower(x).compile().as_text())
""")
    assert " dot(" in hlo
    assert "ynn" not in hlo


def test_it_was_early_enough_for_these_tests():
    hlo = jax.jit(lambda x: x @ x).lower(jnp.ones((256, 256))).compile().as_text()
    assert " dot(" in hlo
    assert "ynn" not in hlo


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="freed memory is kept where there is glibc")
def test_freed_memory_is_not_taken_from_the_system_again():
    faults = run("""
import ctypes, resource
from castream_jax.runtime.cpu import prepare_cpu
prepare_cpu()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes, libc.free.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], [ctypes.c_void_p]
def use(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(size)
    libc.memset(block, 1, size)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(use(2**28), use(2**28))
""")
    first, second = map(int, faults.split())
    assert second < 50 < first  # of the system's pages, even where these are 2 MiB
