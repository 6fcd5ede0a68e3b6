"""A PyTorch network as a graph, with marks where its feature maps are.

A mark is an operation of our own, `castream_jax::mark(x, name)`, that gives its input: `torch.export` keeps it, and
what interprets the graph can read the value there, or put another one in its place.
"""

from collections.abc import Iterator
import contextlib
import functools
import io
import logging
from typing import Any, NamedTuple
import warnings

import numpy as np

from castream_jax.importing.network import LAST, Network
from castream_jax.importing.torchax_operations import torchax_operations

TARGET, BLOCK, POOLED = "target", "block", "pooled"  # and LAST; other marks have the names of sub-modules

# Operations whose results are no logits, and what they are called; and those that the output may go through after.
_PROBABILITIES = {"_softmax": "softmax", "softmax": "softmax", "sigmoid": "sigmoid"}
_SAME_NUMBERS = ("alias", "clone", "view", "_unsafe_view", "squeeze", "unsqueeze", "_to_copy", "castream_jax.mark")


class Graph(NamedTuple):
    """A network that was captured.

    Attributes:
        nodes: of `torch.fx`, in the order of the computation.
        output: the node of the logits.
        inputs: the node of the images.
        sizes: nodes that are the number of images.
        weights: name -> array of each parameter, statistic and constant that the graph reads.
        weight_nodes: node -> name in `weights`.
        kernels: names of those that only convolutions read.
        norms: names of those that only normalisations read.
        marks: name -> node of each mark.
    """

    nodes: tuple[Any, ...]
    output: Any
    inputs: Any
    sizes: tuple[Any, ...]
    weights: dict[str, np.ndarray]
    weight_nodes: dict[Any, str]
    kernels: frozenset[str]
    norms: frozenset[str]
    marks: dict[str, Any]


@functools.cache
def _mark_operation() -> Any:
    import torch  # pyright: ignore[reportMissingImports]

    library = torch.library.Library("castream_jax", "DEF")
    library.define("mark(Tensor x, str name) -> Tensor")
    library.impl("mark", lambda x, name: x.clone(), "CompositeExplicitAutograd")
    return library, torch.ops.castream_jax.mark.default  # the library must live as long as the operation


def is_mark(node: Any) -> bool:
    """Whether a node is a mark."""
    return node.op == "call_function" and node.target is _mark_operation()[1]


def capture(network: Network) -> Graph:
    """The graph of `network` for batches of any size.

    Raises:
        ValueError: if `torch.export` cannot make a graph of it, it gives probabilities or anything but one tensor, or
            it draws random numbers.
    """
    import torch  # pyright: ignore[reportMissingImports]

    _, decompositions = torchax_operations()
    marked = _marked(network)
    size = network.image_size
    images = torch.zeros(2, 3, size, size)
    batch = torch.export.Dim("b", min=2, max=4096)
    try:
        with _quiet():
            with torch.no_grad(), _hooks(network):
                exported = torch.export.export(marked, (images,), dynamic_shapes=({0: batch},), strict=False)
            exported = exported.run_decompositions().run_decompositions(decompositions)
    except Exception as error:  # whatever a network may raise
        reason = " ".join(str(error).split()).split(". ")[0].rstrip(".")[:200]
        raise ValueError(
            f"{network.name} cannot be imported, torch.export makes no graph of it ({type(error).__name__}: {reason}): "
            "control flow that depends on values, and a batch of fixed size, have to be rewritten."
        ) from error
    return _graph(exported, network)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch warns, logs and prints of its own insides: what went wrong is said in a sentence."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _marked(network: Network) -> Any:
    import torch  # pyright: ignore[reportMissingImports]

    mark = _mark_operation()[1]

    class Marked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network.module

        def forward(self, x: Any) -> Any:
            if network.last != "forward_features":
                return self.network(x)
            return self.network.forward_head(mark(self.network.forward_features(x), LAST))

    return Marked()


@contextlib.contextmanager
def _hooks(network: Network) -> Iterator[None]:
    """Marks on the outputs of sub-modules, and on the input of the last block."""
    mark = _mark_operation()[1]
    modules = dict(network.module.named_modules())
    names = {name: name for name in (*network.taps, *sum(network.attention, ()))}
    if network.last != "forward_features":
        names[network.last] = LAST
    if network.pooled in modules and network.pooled:
        names[network.pooled] = POOLED
    handles = []
    if network.classifier is not None:
        handles.append(
            modules[network.classifier].register_forward_pre_hook(
                lambda _, inputs: (mark(inputs[0], POOLED), *inputs[1:])
            )
        )
    if network.target is not None:
        block, norm = network.target
        names[norm] = TARGET
        handles.append(
            modules[block].register_forward_pre_hook(lambda _, inputs: (mark(inputs[0], BLOCK), *inputs[1:]))
        )
    for module, name in names.items():
        handles.append(modules[module].register_forward_hook(lambda _, __, y, name=name: mark(y, name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _graph(exported: Any, network: Network) -> Graph:
    from torch.export.graph_signature import InputKind  # pyright: ignore[reportMissingImports]

    exported.graph_module.graph.eliminate_dead_code()
    nodes = tuple(exported.graph.nodes)
    _check_no_random_numbers(nodes, network)
    output = _output(exported, network)
    placeholders = [node for node in nodes if node.op == "placeholder"]
    tensors = {**exported.state_dict, **exported.constants}
    weights, weight_nodes, inputs = {}, {}, None
    for node, spec in zip(placeholders, exported.graph_signature.input_specs, strict=True):
        if spec.kind is InputKind.USER_INPUT:
            inputs = node
        elif node.users:
            name = str(spec.target).removeprefix("network.")
            weights[name] = tensors[spec.target].detach().cpu().numpy()
            weight_nodes[node] = name
    marks = {node.args[1]: node for node in nodes if is_mark(node)}
    kernels, norms = (
        frozenset(name for node, name in weight_nodes.items() if only(node)) for only in (_is_kernel, _is_of_norm)
    )
    images = str(_value(inputs).shape[0])
    sizes = tuple(node for node in nodes if "sym_size" in str(node.target) and str(_value(node)) == images)
    return Graph(nodes, output, inputs, sizes, weights, weight_nodes, kernels, norms, marks)


def _output(exported: Any, network: Network) -> Any:
    """The node of the logits; what the network writes into its images or statistics is no output of its."""
    from torch.export.graph_signature import OutputKind  # pyright: ignore[reportMissingImports]

    nodes = next(node for node in exported.graph.nodes if node.op == "output").args[0]
    kinds = [spec.kind for spec in exported.graph_signature.output_specs]
    outputs = [node for node, kind in zip(nodes, kinds, strict=True) if kind is OutputKind.USER_OUTPUT]
    if len(outputs) != 1:
        raise ValueError(
            f"{network.name} gives {len(outputs)} tensors, and a classifier gives logits [B, K] alone: wrap it in a "
            "module that returns these."
        )
    tree = exported.call_spec.out_spec
    if not tree.is_leaf():
        raise ValueError(f"{network.name} gives a {tree.type.__name__}: wrap it in a module that returns the logits.")
    last = outputs[0]
    while _operation(last) in _SAME_NUMBERS:
        last = last.args[0]
    if (name := _operation(last)) in _PROBABILITIES:
        raise ValueError(
            f"{network.name} gives probabilities, not logits: return what its {_PROBABILITIES[name]} is given."
        )
    return outputs[0]


def _check_no_random_numbers(nodes: tuple[Any, ...], network: Network) -> None:
    import torch  # pyright: ignore[reportMissingImports]

    drawn = [node for node in nodes if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())]
    if drawn:
        raise ValueError(
            f"{network.name} uses random numbers ({_operation(drawn[0])}) in inference mode: is there an F.dropout "
            "without training=self.training?"
        )


def _operation(node: Any) -> str:
    """The name of one of PyTorch's operations, such as `"softmax"`, or nothing."""
    packet = getattr(getattr(node, "target", None), "overloadpacket", "")
    return str(packet).removeprefix("aten.")


def _value(node: Any) -> Any:
    return node.meta["val"]


def _is_kernel(node: Any) -> bool:
    """Whether a weight is nothing but the kernel of 2-D convolutions that are not transposed."""
    return all(
        "convolution" in str(user.target) and user.args[1] is node and len(user.args[3]) == 2 and not user.args[6]
        for user in node.users
    )


def _is_of_norm(node: Any) -> bool:
    return all("batch_norm" in str(user.target) or "layer_norm" in str(user.target) for user in node.users)
