"""A program compiled for chips that are not there, as rows of a table; or why it is too large for them."""

from collections.abc import Iterator
import re
import time
from typing import Any, NamedTuple

import jax

from castream_jax.ahead_of_time.chips import Chip, chip_of, compile_only_devices
from castream_jax.ahead_of_time.hlo import (
    collectives,
    largest_tensors,
    layout_copies,
    padding,
    products_in_six_passes,
    wide_arrays,
)
from castream_jax.ahead_of_time.programs import PROGRAMS, Program
from castream_jax.experiment.config import Config


class Compiled(NamedTuple):
    """What the compiler says of a program.

    Attributes:
        chip: that it is for.
        program: before it was compiled.
        executable: after.
        seconds: that compiling took.
    """

    chip: Chip
    program: Program
    executable: jax.stages.Compiled
    seconds: float

    @property
    def memory_bytes(self) -> dict[str, int]:
        """Of each chip, by what it is for; results that take an argument's place are counted once."""
        memory: Any = self.executable.memory_analysis()
        return {
            "arguments": memory.argument_size_in_bytes,
            "results": memory.output_size_in_bytes - memory.alias_size_in_bytes,
            "temporary": memory.temp_size_in_bytes,
            "code": memory.generated_code_size_in_bytes,
        }

    def per_image(self, what: str) -> float:
        """`"flops"` or `"bytes accessed"`, as XLA counts them, for each image; the body of a loop counts once."""
        analysis: Any = self.executable.cost_analysis()
        return analysis[what] * self.program.chips / self.program.images

    def rows(self) -> Iterator[tuple[str, str]]:
        """(what, value) of each figure."""
        text, memory = self.executable.as_text() or "", self.memory_bytes
        total = sum(memory.values())
        parts = ", ".join(f"{what} {_mib(size)}" for what, size in memory.items())
        yield "images at once", f"{self.program.images:,} on {self.program.chips} chips"
        if self.program.remark:
            yield "evaluation", self.program.remark
        yield "memory per chip", f"{_mib(total)}, {total / self.chip.memory_bytes:.1%} of a {self.chip.name}'s"
        yield "of which", parts
        once = ", bodies of loops once" if " while(" in text else ""
        yield f"operations per image{once}", f"{self.per_image('flops') / 1e9:,.2f} GFLOP"
        yield f"bytes per image{once}", f"{self.per_image('bytes accessed') / 1e6:,.1f} MB"
        yield "between chips", ", ".join(collectives(text)) or "nothing"
        yield "float32 products in six passes", "{} of {}".format(*products_in_six_passes(text))
        yield "instructions on 64-bit numbers", str(wide_arrays(text))
        count, size = layout_copies(text)
        yield "copies for another layout", f"{count}, {_mib(size)}"
        yield "arrays in whole tiles ÷ their values", f"{padding(text):.2f}"
        yield "compiled in", f"{self.seconds:.0f} s"


def compile_for(config: Config, topology: str, name: str) -> Compiled:
    """Compiles the program `name` of `PROGRAMS` for all chips of a topology. Nothing runs.

    Raises:
        ValueError: if the config cannot be, there is no such topology, or the program is too large for its chips.
    """
    devices = compile_only_devices(topology)
    chip = chip_of(devices[0])
    program = PROGRAMS[name](config, devices)
    begin = time.perf_counter()
    try:
        executable = program.lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise ValueError(_too_large(name, chip, str(error), program.lowered.as_text())) from error
    return Compiled(chip, program, executable, time.perf_counter() - begin)


def _too_large(name: str, chip: Chip, said: str, text: str) -> str:
    """What the compiler said of a program that does not fit, in one sentence, with the largest arrays of its text."""
    sizes = re.search(r"\(([\d.]+\w)\) exceeds available HBM \(([\d.]+\w)\)", said)
    needs = f"needs {sizes[1]} of {sizes[2]}" if sizes else "does not fit"
    remedy = "config.train.accumulate" if name == "train" else "a smaller config.evaluation.batch_size"
    return (
        f"The program {name!r} {needs} on each {chip.name}; its largest arrays are {', '.join(largest_tensors(text))}: "
        f"set {remedy}, or take more chips."
    )


def _mib(size: float) -> str:
    return f"{size / 2**20:,.1f} MiB"
