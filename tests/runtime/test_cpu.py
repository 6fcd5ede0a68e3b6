"""What is said to XLA and to the allocator before JAX starts."""

import subprocess
import sys

import pytest

from castream_jax.runtime import cpu

FLAG = "--xla_cpu_experimental_ynn_fusion_type"


def test_flags_are_added_to_those_of_the_user(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/tmp/x")
    cpu.set_xla_flags()
    cpu.set_xla_flags()  # once
    assert cpu.os.environ["XLA_FLAGS"] == f"--xla_dump_to=/tmp/x {FLAG}="


def test_the_users_choice_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XLA_FLAGS", f"{FLAG}=LIBRARY_FUSION_TYPE_DOT")
    cpu.set_xla_flags()
    assert cpu.os.environ["XLA_FLAGS"] == f"{FLAG}=LIBRARY_FUSION_TYPE_DOT"


def test_a_jaxlib_that_may_not_know_the_flag_is_told_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(cpu.jaxlib.version, "__version_info__", (0, 12, 0))
    cpu.set_xla_flags()
    assert "XLA_FLAGS" not in cpu.os.environ


def run(code: str) -> str:
    """What a process of its own prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_is_early_enough():
    """Where JAX came first, XLA's own kernels multiply."""
    hlo = run("""
import jax, jax.numpy as jnp
import castream_jax
x = jnp.ones((256, 256))
print(jax.jit(lambda x: x @ x).lower(x).compile().as_text())
""")
    assert " dot(" in hlo
    assert "ynn" not in hlo


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="freed memory is kept where there is glibc")
def test_freed_memory_is_not_taken_from_the_system_again():
    faults = run("""
import ctypes, resource
from castream_jax.runtime.cpu import keep_freed_memory
keep_freed_memory()
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
