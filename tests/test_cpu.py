"""What is said to XLA and to the allocator before JAX starts."""

import subprocess
import sys

import pytest

from castream_jax import cpu

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


def test_importing_the_package_is_early_enough():
    """In a process of its own, where JAX came first: XLA's own kernels multiply, and freed memory is kept."""
    code = """
import jax, jax.numpy as jnp
import castream_jax
from castream_jax.cpu import keep_freed_memory
keep_freed_memory()
x = jnp.ones((256, 256))
print(jax.jit(lambda x: x @ x).lower(x).compile().as_text())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert " dot(" in done.stdout
    assert "ynn" not in done.stdout
