"""What a compiled program's text (HLO) tells of it: collectives, layouts, padding, types, precision."""

from collections.abc import Iterator
import math
import re
from typing import NamedTuple

_BYTES = {"pred": 1, "bf16": 2}
_ARRAY = r"(?P<type>pred|bf16|[suf]\d+)\[(?P<shape>[\d,]*)\](?:\{(?P<order>[\d,]*)(?::T\((?P<tile>[\d,]+)\))?)?"
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%\S+ = (?P<result>\(.*?\)|\S+) (?P<kind>[a-z][a-z-]*)\(", re.MULTILINE)
_COLLECTIVES = frozenset(
    ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute", "collective-broadcast")
)
# What makes no array of its own: a name for one that is there, or a part of a tuple.
_NO_ARRAY = frozenset(("parameter", "get-tuple-element", "tuple", "bitcast", "while", "conditional"))


class Array(NamedTuple):
    """An array in a chip's memory.

    Attributes:
        text: type and shape, such as `"f32[16,64,64,16]"`.
        bytes: of its values.
        padded_bytes: that it takes, in whole tiles.
    """

    text: str
    bytes: int
    padded_bytes: int


class Instruction(NamedTuple):
    """One of a program that is not inside a fusion: it reads memory and writes memory."""

    kind: str
    arrays: tuple[Array, ...]


def instructions(text: str) -> Iterator[Instruction]:
    """Those of all computations but the fused ones, in the order of the text."""
    fused = set(re.findall(r"\b(?:calls|to_apply)=(%[\w.-]+)", text))
    for computation in re.split(r"\n(?=%|ENTRY )", text):
        name = computation.removeprefix("ENTRY ").partition(" ")[0]
        if name not in fused:
            for found in _INSTRUCTION.finditer(computation):
                yield Instruction(found["kind"], tuple(_arrays(found["result"])))


def collectives(text: str) -> list[str]:
    """Each exchange between chips, such as `"all-reduce f32[7106]"`."""
    found = []
    for instruction in instructions(text):
        kind = instruction.kind.removesuffix("-start")
        if kind in _COLLECTIVES:
            found.append(" ".join([kind, *(array.text for array in instruction.arrays[:1])]))
    return found


def layout_copies(text: str) -> tuple[int, int]:
    """How many copies only change how an array lies in memory, and their bytes."""
    copied = [one.arrays[0].bytes for one in instructions(text) if one.kind in ("copy", "transpose")]
    return len(copied), sum(copied)


def padding(text: str) -> float:
    """Bytes of all results of the program's instructions in whole tiles, over the bytes of their values."""
    arrays = [array for one in instructions(text) if one.kind not in _NO_ARRAY for array in one.arrays]
    return sum(array.padded_bytes for array in arrays) / max(sum(array.bytes for array in arrays), 1)


def wide_arrays(text: str) -> int:
    """Instructions on 64-bit numbers, which a TPU emulates."""
    return len(re.findall(r"= \(?[suf]64\[", text))


def products_in_six_passes(text: str) -> tuple[int, int]:
    """Convolutions and matrix products of float32 at highest precision, and all of them.

    A TPU multiplies bfloat16 numbers: it makes such a product out of six.
    """
    lines = re.findall(r"^.* (?:convolution|dot)\(.*$", text, re.MULTILINE)
    return sum("operand_precision={highest" in line and "= f32[" in line for line in lines), len(lines)


def largest_tensors(text: str, count: int = 3) -> list[str]:
    """Types of the largest arrays in a lowered program (StableHLO), such as `"64x56x56x256xf32"`."""

    def size(tensor: str) -> int:
        *shape, kind = tensor.split("x")
        bits = re.search(r"\d+", kind)
        return math.prod(map(int, shape)) * int(bits[0] if bits else 8)

    found = set(re.findall(r"tensor<((?:\d+x)+[a-z]+\d+)>", text))
    return sorted(found, key=size, reverse=True)[:count]


def _arrays(result: str) -> Iterator[Array]:
    for found in re.finditer(_ARRAY, result):
        size = _BYTES.get(found["type"]) or int(found["type"][1:]) // 8
        shape = _numbers(found["shape"])
        values = size * math.prod(shape)
        yield Array(f"{found['type']}[{found['shape']}]", values, size * _tiled(shape, found["order"], found["tile"]))


def _tiled(shape: list[int], order: str | None, tile: str | None) -> int:
    """Numbers in whole tiles; `order` are the axes from the one that lies closest together."""
    axes, sides = _numbers(order), _numbers(tile)[::-1]
    if len(axes) < len(sides):
        return math.prod(shape)
    lengths = [shape[axis] for axis in axes]
    for position, side in enumerate(sides):
        lengths[position] = -(-lengths[position] // side) * side
    return math.prod(lengths)


def _numbers(text: str | None) -> list[int]:
    return [int(number) for number in (text or "").split(",") if number]
