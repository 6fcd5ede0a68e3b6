"""Evaluates parts of a captured graph with JAX arrays: only what the wanted values need."""

from collections.abc import Container, Mapping, Sequence
from typing import Any

from castream_jax.importing.capture import Graph, is_mark
from castream_jax.importing.channels_last import ChannelsLast, operate, to_torch


def evaluate(
    graph: Graph, wanted: Sequence[Any], given: Mapping[Any, Any], add: Mapping[Any, Any], images: Any
) -> list[Any]:
    """Values of the nodes `wanted`, where those of the nodes `given` are known.

    Args:
        graph: of a network.
        wanted: nodes.
        given: node -> its value; what leads to it is not computed.
        add: node of a mark -> what is added to the value there.
        images: how many there are.
    """
    from torch.fx.node import map_arg  # pyright: ignore[reportMissingImports]

    values = {**given, **dict.fromkeys(graph.sizes, images)}
    for node in needed_nodes(graph, wanted, values):
        arguments, options = map_arg((node.args, node.kwargs), values.__getitem__)
        if is_mark(node):
            values[node] = _moved(arguments[0], add[node]) if node in add else arguments[0]
        else:
            values[node] = operate(node.target, *arguments, **options)
    return [values[node] for node in wanted]


def _moved(value: Any, offset: Any) -> Any:
    if isinstance(value, ChannelsLast) and isinstance(offset, ChannelsLast):
        return ChannelsLast(value.array + offset.array)
    return to_torch(value) + to_torch(offset)


def needed_nodes(graph: Graph, wanted: Sequence[Any], given: Container[Any]) -> list[Any]:
    """The nodes that are to be computed, in order."""
    needed, waiting = set(), list(wanted)
    while waiting:
        node = waiting.pop()
        if node in needed or node in given:
            continue
        if node.op != "call_function":
            raise ValueError(f"The graph reads {node}, which is not known here.")
        needed.add(node)
        waiting.extend(node.all_input_nodes)
    return [node for node in graph.nodes if node in needed]
