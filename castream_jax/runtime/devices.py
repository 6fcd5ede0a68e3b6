"""What a run computes on, in words; and what is there that JAX does not use."""

from collections.abc import Iterator
import os
from pathlib import Path

import jax

# The driver's own file: there is one where a container or a machine sees an NVIDIA device.
_NVIDIA = Path("/proc/driver/nvidia/version")


def available_cores() -> int:
    """CPU cores that this process may use: those of its affinity mask, where the system has one."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def describe_devices() -> str:
    """All devices of the run, such as "8 × NVIDIA H100 80GB HBM3" or "1 × CPU (2 cores)"."""
    devices = jax.devices()
    kind = devices[0].device_kind
    if devices[0].platform == "cpu":
        kind = f"CPU ({available_cores()} cores)"
    processes = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"{len(devices)} × {kind}{processes}"


def unused_accelerator() -> str:
    """A sentence on how to use the NVIDIA device that is there, if JAX computes on the CPU beside it; else empty."""
    if not _NVIDIA.exists() or jax.default_backend() != "cpu" or os.environ.get("JAX_PLATFORMS", "") == "cpu":
        return ""
    return (
        "there is an NVIDIA device, and JAX is installed without CUDA: pip install 'castream_jax[cuda13]' (or [cuda12] "
        "for an older driver)"
    )


def device_remarks() -> Iterator[str]:
    """What a command says of its devices before it begins."""
    yield f"on {describe_devices()}"
    if hint := unused_accelerator():
        yield hint
