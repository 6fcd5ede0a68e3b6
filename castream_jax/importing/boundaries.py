"""Where the feature maps of a captured network are, and in which form PyTorch has them."""

import math
from typing import Any

from castream_jax.importing.capture import POOLED, TARGET, Graph
from castream_jax.importing.network import LAST, Network
from castream_jax.importing.trunk_programs import Boundary


def find_boundaries(network: Network, graph: Graph) -> tuple[tuple[Boundary, ...], int]:
    """The boundaries in the order of the computation, and the number of classes.

    The output of the last tap and what is pooled are one boundary where they have one size: the second follows from
    the first by a normalisation, or is the same.

    Raises:
        ValueError: if an output is no map, taps are out of order, or the network gives no logits `[B, K]`.
    """
    logits = _shape(graph.output)
    if logits is None or len(logits) != 2:
        raise ValueError(
            f"{network.name} gives {_told(logits)}, and a classifier gives logits [B, K]: detectors and segmenters "
            "have no class that a map would explain."
        )
    dtype = graph.output.meta["val"].dtype
    if not dtype.is_floating_point:
        raise ValueError(f"{network.name} gives numbers of {dtype}, and logits are of torch.float32: return these.")
    if network.classifier is not None and POOLED not in graph.marks:
        raise ValueError(
            f"The logits of {network.name} do not depend on the sub-module {network.classifier!r}: classifier is the "
            "one that is given the mean of the last tap."
        )
    order = {node: number for number, node in enumerate(graph.nodes)}
    wanted = [tap for tap in network.taps if tap != network.last]
    missing = [tap for tap in wanted if tap not in graph.marks]
    if missing or LAST not in graph.marks:
        raise ValueError(
            f"The logits of {network.name} do not depend on the output of {(missing or [network.last])[0]!r}: choose "
            "sub-modules that the classifier reads."
        )
    boundaries = [_boundary(tap, network, graph) for tap in (*wanted, LAST)]
    if len(boundaries) > 1 and boundaries[-2][2:] == boundaries[-1][2:] and network.last not in network.taps:
        boundaries.pop(-2)
    numbers = [order[graph.marks[boundary.mark]] for boundary in boundaries]
    if numbers != sorted(numbers):
        raise ValueError(f"The taps of {network.name} are not in the order in which it computes them: reorder them.")
    if network.target is not None and TARGET not in graph.marks:
        raise ValueError(f"The last block of {network.name} does not run {network.target[1]}: it cannot be imported.")
    return tuple(boundaries), int(logits[1])


def find_attention(network: Network, graph: Graph, last: Boundary) -> tuple[tuple[str, str], ...]:
    """Blocks and the marks of their attention, where in each of them every token attends to all; else nothing."""
    tokens = network.prefix_tokens + last.height * last.width
    for block, attention in network.attention:
        shape = _shape(graph.marks[attention]) if {block, attention} <= graph.marks.keys() else None
        if shape is None or len(shape) != 4 or shape[2:] != (tokens, tokens):
            return ()
    return network.attention if last.layout == "tokens" else ()


def _boundary(mark: str, network: Network, graph: Graph) -> Boundary:
    shape = _shape(graph.marks[mark])
    if shape is not None and len(shape) == 3:
        patches, dim = shape[1] - network.prefix_tokens, shape[2]
        height, width = network.grid or (0, 0)
        if height * width != patches:
            height = width = math.isqrt(max(patches, 0))
        if patches > 1 and height * width == patches:
            return Boundary(mark, "tokens", height, width, dim)
    if shape is not None and len(shape) == 4:
        _, first, second, third = shape
        if first == second != third or getattr(network.module, "output_fmt", "") == "NHWC":
            return Boundary(mark, "nhwc", first, second, third)
        return Boundary(mark, "nchw", second, third, first)
    raise ValueError(
        f"The output of {network.place(mark)!r} in {network.name} is {_told(shape)}, and no map [B, d, h, w] or "
        "patches [B, n, d] in a square: choose another sub-module."
    )


def _shape(node: Any) -> tuple[Any, ...] | None:
    value = node.meta.get("val") if hasattr(node, "meta") else None
    shape = getattr(value, "shape", None)
    return None if shape is None else (shape[0] if len(shape) else 0, *map(int, shape[1:]))


def _told(shape: tuple[Any, ...] | None) -> str:
    return "no tensor" if shape is None else f"[{', '.join(['B', *map(str, shape[1:])])}]"
