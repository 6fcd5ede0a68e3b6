"""What makes JAX's programs faster on a CPU and belongs to the process: XLA's flags, and memory that is kept.

Importing the package changes neither, since a process is its user's. The command line, the benchmarks and the tests
call `prepare_cpu`; so may any program.
"""

import ctypes
import os
import sys

import jaxlib.version

# XLA hands matrix products and convolutions to YNNPACK; left to its own kernels (Eigen's), ResNet-50 runs 1.2 times and
# ConvNeXt-T 1.7 times as fast on two x86-64 cores. No fusion type: nothing is handed over.
XLA_FLAGS = {"xla_cpu_experimental_ynn_fusion_type": ""}
_KNOWN = ((0, 10), (0, 12))  # jaxlib of these versions: of a flag that it does not know, XLA aborts

_ARENA_MAX, _MMAP_MAX, _TOP_PAD, _TRIM_THRESHOLD = -8, -4, -2, -1  # glibc, malloc.h


def prepare_cpu() -> None:
    """Prepares this process for JAX on a CPU: to be called once, before JAX initialises a backend.

    Adds `XLA_FLAGS` to the environment variable of that name, which XLA reads when the first backend starts. A flag
    that the variable already sets stays as it is: this is the way to choose otherwise.

    Keeps memory that is freed, where there is glibc, for the next use, instead of returning it to the system. XLA
    allocates what a program needs each time it runs. By default, glibc takes so large a block from the system each
    time, which clears it page by page: a tenth of a training step of ResNet-50.
    """
    _add_xla_flags()
    _keep_freed_memory()


def _add_xla_flags() -> None:
    if not _KNOWN[0] <= jaxlib.version.__version_info__[:2] < _KNOWN[1]:
        return
    given = os.environ.get("XLA_FLAGS", "")
    missing = [f"--{name}={value}" for name, value in XLA_FLAGS.items() if name not in given]
    os.environ["XLA_FLAGS"] = " ".join([*given.split(), *missing])


def _keep_freed_memory() -> None:
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26)):
            mallopt(parameter, value)
