"""`castream doctor`: what this installation is, what it computes on, and whether it computes rightly."""

import argparse
from collections.abc import Iterator
import platform
import time
from typing import Any

from castream_jax.commands.start import start
from castream_jax.version import installed_version

_PACKAGES = ("castream_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow")
_EXPECTED = (9, 0.8306)  # of the canvas that the self-test explains: class and probability
_TOLERANCE = 1e-3  # of a probability: float32 in any order of sums is within 1e-6, bfloat16 products are not


def add(commands: Any) -> None:
    """Adds the parser to the sub-parsers of `castream`."""
    text = "Say what is installed and what it computes on, and test it in seconds. Exit status 2 if something is wrong."
    command = commands.add_parser("doctor", help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Prints a line per fact.

    Raises:
        ValueError: if the self-test gives other numbers than it should.
    """
    start(alone=True)
    from castream_jax.runtime.cache_folder import cache_folder
    from castream_jax.runtime.compilation_cache import use_compilation_cache
    from castream_jax.runtime.devices import describe_devices, unused_accelerator

    print(f"Python        {platform.python_version()}, {platform.platform()}")
    print(f"packages      {', '.join(_versions())}")
    print(f"devices       {describe_devices()}{_memory()}")
    if hint := unused_accelerator():
        print(f"              {hint}")
    try:
        print(f"weights       {cache_folder()}")
    except FileNotFoundError as error:
        print(f"weights       not kept: {error}")
    print(f"programs      {use_compilation_cache() or 'not kept'}")
    print(f"self-test     {_self_test()}")


def _versions() -> Iterator[str]:
    for package in _PACKAGES:
        yield f"{package} {installed_version(package) or '(no version)'}"


def _memory() -> str:
    import jax

    statistics = jax.local_devices()[0].memory_stats() or {}
    return f", {statistics['bytes_limit'] / 2**30:.0f} GiB each" if "bytes_limit" in statistics else ""


def _self_test() -> str:
    """Explains a canvas of digits by the bundled classifier; its probabilities are known."""
    from castream_jax.backbones import load_backbone
    from castream_jax.data import CanvasDigits
    from castream_jax.explanation import explain
    from castream_jax.model import ImageSpec, Model
    from castream_jax.stream import GlobalAveragePooling

    begin = time.perf_counter()
    backbone = load_backbone("cifar_resnet8", "digits", num_classes=10)
    model = Model(backbone, {"gap": GlobalAveragePooling()}, ImageSpec(64))
    explanation = explain(model, CanvasDigits("test")[7]["pixels"])
    found, seconds = explanation.predictions("gap")[0], time.perf_counter() - begin
    if found.number != _EXPECTED[0] or abs(found.probability - _EXPECTED[1]) > _TOLERANCE:
        raise ValueError(
            f"The self-test gives class {found.number} with probability {found.probability:.4f}, and it should be "
            f"{_EXPECTED[0]} with {_EXPECTED[1]:.4f}: devices or packages compute wrongly; report the lines above."
        )
    return f"right, in {seconds:.1f} s"
