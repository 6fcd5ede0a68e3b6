"""TPUs by the name of their topology, as compile-only devices: the compiler needs the name, not the chips."""

import importlib.util
import os
from typing import Any, NamedTuple, TypeAlias

import jax
from jax.experimental import topologies

# libtpu asks the machine which TPU it is in. Where there is none, it has to be told something; the topology's name
# says what programs are compiled for.
_ELSEWHERE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_ID": "0",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several processes may compile; a chip would be for one alone
}


Device: TypeAlias = Any  # a jax.Device, which type checkers do not take for a type


class Chip(NamedTuple):
    """What Google's documentation of Cloud TPU says of a chip.

    Attributes:
        name: as topologies are called.
        memory_bytes: HBM.
    """

    name: str
    memory_bytes: int


_CHIPS = {
    "TPU v4": Chip("v4", 32 * 2**30),
    "TPU v5 lite": Chip("v5e", 16 * 2**30),
    "TPU v5": Chip("v5p", 95 * 2**30),
    "TPU v6 lite": Chip("v6e", 32 * 2**30),
}


def compile_only_devices(topology: str) -> list[Device]:
    """The chips of a topology such as `"v5e:16x16"`, to compile for; nothing can run on them.

    Raises:
        ValueError: if libtpu, the compiler, is not installed, or knows no such topology.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            "The compiler for TPUs is not installed: pip install 'castream_jax[tpu]', which needs no TPU for this."
        )
    for name, value in _ELSEWHERE.items():
        os.environ.setdefault(name, value)
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        said = " ".join(str(error).split()).rpartition("INVALID_ARGUMENT: ")[2].rstrip(".")
        raise ValueError(
            f"libtpu knows no topology {topology!r} ({said}): give one such as v5e:2x2, v5p:2x2x1 or v6e:16x16."
        ) from error


def chip_of(device: Device) -> Chip:
    """The name and the memory of a device's chip.

    Raises:
        ValueError: for a chip whose memory is not known here.
    """
    if device.device_kind not in _CHIPS:
        known = ", ".join(chip.name for chip in _CHIPS.values())
        raise ValueError(f"The memory of a {device.device_kind!r} is not known here: choose from {known}.")
    return _CHIPS[device.device_kind]
