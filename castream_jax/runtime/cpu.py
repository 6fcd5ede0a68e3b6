"""What makes XLA's programs faster on a CPU and must be set before JAX initialises; see `benchmarks/forward.py`."""

import ctypes
import os
import sys

import jaxlib.version

# XLA hands matrix products and convolutions to YNNPACK; left to its own kernels (Eigen's), ResNet-50 runs 1.2 times and
# ConvNeXt-T 1.7 times as fast on two x86-64 cores. No fusion type: nothing is handed over.
XLA_FLAGS = {"xla_cpu_experimental_ynn_fusion_type": ""}
_KNOWN = ((0, 10), (0, 12))  # jaxlib of these versions: of a flag that it does not know, XLA aborts

_ARENA_MAX, _MMAP_MAX, _TOP_PAD, _TRIM_THRESHOLD = -8, -4, -2, -1  # glibc, malloc.h


def set_xla_flags() -> None:
    """Adds `XLA_FLAGS` to the variable of that name, which XLA reads once, when the first device starts.

    What the variable says already stays as it is, so that it is also the way to choose otherwise.
    """
    if not _KNOWN[0] <= jaxlib.version.__version_info__[:2] < _KNOWN[1]:
        return
    given = os.environ.get("XLA_FLAGS", "")
    missing = [f"--{name}={value}" for name, value in XLA_FLAGS.items() if name not in given]
    os.environ["XLA_FLAGS"] = " ".join([*given.split(), *missing])


def keep_freed_memory() -> None:
    """Lets this process use the memory that it frees again, instead of giving it back to the system.

    XLA allocates what a program needs each time it runs. glibc takes so large a block from the system each time, which
    clears it page by page: a tenth of a training step of ResNet-50. For programs of our own, not for a library to do to
    its user's process; without effect where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26)):
            mallopt(parameter, value)
