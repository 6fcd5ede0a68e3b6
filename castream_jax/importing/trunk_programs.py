"""The programs of an imported trunk: StableHLO for batches of any size, and for every platform.

Axes: b image, h w positions of a boundary, d its channels. What each program takes and gives is written in
`castream_jax.backbones.imported`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
from jaxtyping import Array

from castream_jax.importing.capture import BLOCK, POOLED, TARGET, Graph
from castream_jax.importing.channels_last import ChannelsLast, Kernel, to_last, to_torch
from castream_jax.importing.interpret import evaluate, needed_nodes
from castream_jax.importing.network import LAST, Layout, Network

PLATFORMS = ("cpu", "cuda", "tpu")
Weights = Mapping[str, Array]


class Boundary(NamedTuple):
    """A feature map of the network, `[B, h, w, d]` in ours, and how PyTorch has it."""

    mark: str
    layout: Layout
    height: int
    width: int
    dim: int


class Functions:
    """What an imported trunk computes, as functions of JAX arrays."""

    def __init__(
        self,
        network: Network,
        graph: Graph,
        boundaries: Sequence[Boundary],
        blocks: Sequence[tuple[str, str]] = (),
    ):
        self.network, self.graph, self.boundaries = network, graph, tuple(boundaries)
        self.blocks = tuple(blocks)  # of a transformer: the marks of their outputs, and of the attention in them
        self.has_vector = network.pooled != "average"
        self.constant_map = False  # whether the classifier insists on the size of the last map

    def stages(self, weights: Weights, x: Array, offsets: Sequence[Array]) -> tuple[tuple[Array, ...], Array | None]:
        """The maps at all boundaries, to each of which an offset is added, and the network's own pooled vector."""
        maps, vector, _ = self._from_images(weights, x, offsets, ())
        return maps, vector

    def target(self, weights: Weights, x: Array) -> tuple[tuple[Array, ...], Array | None, Array, tuple[Array, ...]]:
        """As `stages`, the features that class activation maps weigh, and what `complete` needs besides."""
        maps, vector, (block, features) = self._from_images(weights, x, (), (BLOCK, TARGET))
        prefix = self.network.prefix_tokens
        return maps, vector, self._map(features, self.boundaries[-1]), (block, features[:, :prefix])

    def complete(self, weights: Weights, context: tuple[Array, ...], features: Array) -> tuple[Array, Array]:
        """The map at the last boundary and the pooled vector, as functions of the target features."""
        block, prefix = context
        tokens = jnp.concatenate([prefix, features.reshape(features.shape[0], -1, features.shape[-1])], 1)
        marks = self.graph.marks
        given = self._weights(weights, block.dtype) | {marks[BLOCK]: block, marks[TARGET]: tokens}
        return self._last_and_vector(given)

    def classify(self, weights: Weights, representation: Array) -> Array:
        """Logits of a pooled vector."""
        marks, last = self.graph.marks, self.boundaries[-1]
        if POOLED in marks:
            given: dict[Any, Any] = {marks[POOLED]: representation}
        else:
            given = {marks[LAST]: self._constant(representation, last)}
        weights_of = self._weights(weights, representation.dtype)
        return to_torch(evaluate(self.graph, [self.graph.output], weights_of | given, {}, representation.shape[0])[0])

    def attention(self, weights: Weights, x: Array) -> Array:
        """Attention in every block, the mean over its heads: `[B, blocks, n, n]`."""
        given = self._weights(weights, x.dtype) | {self.graph.inputs: ChannelsLast(x)}
        nodes = [self.graph.marks[attention] for _, attention in self.blocks]
        values = evaluate(self.graph, nodes, given, {}, x.shape[0])
        return jnp.stack([value.astype(jnp.float32).mean(1) for value in values], 1)

    def attention_gradients(self, weights: Weights, x: Array, classes: Array) -> Array:
        """What attention in a block adds to the logit that its own output would give, `[B, blocks, n]`.

        The output of the block is handed to what follows the last one. The derivative of the logit of `classes` with
        respect to the block's attention, where positive, is averaged over heads and over the tokens that attend.
        """
        graph, marks, images = self.graph, self.graph.marks, x.shape[0]
        known = self._weights(weights, x.dtype)
        outputs = [marks[block] for block, _ in self.blocks]
        attention = [marks[name] for _, name in self.blocks]
        values = evaluate(graph, [*outputs, *attention], known | {graph.inputs: ChannelsLast(x)}, {}, images)
        before = [
            {graph.inputs: ChannelsLast(x)},
            *({node: value} for node, value in zip(outputs, values, strict=False)),
        ]

        def logit(number: int, offset: Array) -> Array:
            (tokens,) = evaluate(graph, [outputs[number]], known | before[number], {attention[number]: offset}, images)
            (logits,) = evaluate(graph, [graph.output], known | {outputs[-1]: tokens}, {}, images)
            return jnp.take_along_axis(to_torch(logits), classes[:, None], 1).astype(jnp.float32).sum()

        gradients = [
            jax.grad(logit, 1)(number, jnp.zeros_like(value)).astype(jnp.float32)
            for number, value in enumerate(values[len(outputs) :])
        ]
        return jnp.stack([jnp.maximum(gradient, 0).mean((1, 2)) for gradient in gradients], 1)

    def classifier_matrices(self, weights: Mapping[str, Any], num_classes: int) -> tuple[str, ...]:
        """Names of the matrices after the pooling, those with an axis of classes if there are such."""
        marks = self.graph.marks
        start = marks.get(POOLED, marks[LAST])
        needed = needed_nodes(self.graph, [self.graph.output], {start, *self.graph.sizes, *self.graph.weight_nodes})
        read = {name for node in needed for name in map(self.graph.weight_nodes.get, node.all_input_nodes) if name}
        matrices = sorted(name for name in read if weights[name].ndim > 1)
        return tuple([name for name in matrices if num_classes in weights[name].shape] or matrices)

    def _constant(self, vector: Array, last: Boundary) -> Any:
        """A map that is the same everywhere: whatever averages it gives the vector."""
        height, width = (last.height, last.width) if self.constant_map else (1, 1)
        shape = (vector.shape[0], height, width, vector.shape[1])
        constant = jnp.broadcast_to(vector[:, None, None], shape)
        if last.layout == "tokens":
            prefix = jnp.broadcast_to(vector[:, None], (vector.shape[0], self.network.prefix_tokens, vector.shape[1]))
            return jnp.concatenate([prefix, constant.reshape(vector.shape[0], -1, vector.shape[1])], 1)
        return ChannelsLast(constant) if last.layout == "nchw" else constant

    def _from_images(
        self, weights: Weights, x: Array, offsets: Sequence[Array], more: Sequence[str]
    ) -> tuple[tuple[Array, ...], Array | None, list[Any]]:
        marks = self.graph.marks
        nodes = [marks[boundary.mark] for boundary in self.boundaries]
        vector = [marks[POOLED]] if self.has_vector and POOLED in marks else []
        given = self._weights(weights, x.dtype) | {self.graph.inputs: ChannelsLast(x)}
        add = {
            node: self._as_torch(offset, boundary)
            for node, offset, boundary in zip(nodes, offsets, self.boundaries, strict=False)
        }
        values = evaluate(self.graph, [*nodes, *vector, *(marks[name] for name in more)], given, add, x.shape[0])
        maps = tuple(map(self._map, values, self.boundaries))
        rest = values[len(nodes) :]
        pooled = None
        if self.has_vector:
            pooled = rest.pop(0) if vector else values[len(nodes) - 1][:, 0]
        return maps, pooled, rest

    def _last_and_vector(self, given: dict[Any, Any]) -> tuple[Array, Array]:
        marks, last = self.graph.marks, self.boundaries[-1]
        nodes = [marks[LAST], *([marks[POOLED]] if POOLED in marks else [])]
        tokens, *vector = evaluate(self.graph, nodes, given, {}, given[marks[BLOCK]].shape[0])
        return self._map(tokens, last), vector[0] if vector else tokens[:, 0]

    def _map(self, value: Any, boundary: Boundary) -> Array:
        """`[B, h, w, d]` of a value at a boundary."""
        if boundary.layout == "nchw":
            return to_last(value)
        value = to_torch(value)
        if boundary.layout == "nhwc":
            return value
        patches = value[:, self.network.prefix_tokens :]
        return patches.reshape(value.shape[0], boundary.height, boundary.width, boundary.dim)

    def _as_torch(self, value: Array, boundary: Boundary) -> Any:
        """The inverse for what is added, 0 at the prefix tokens."""
        if boundary.layout == "nchw":
            return ChannelsLast(value)
        if boundary.layout == "nhwc":
            return value
        tokens = value.reshape(value.shape[0], -1, boundary.dim)
        return jnp.pad(tokens, ((0, 0), (self.network.prefix_tokens, 0), (0, 0)))

    def _weights(self, weights: Weights, dtype: Any) -> dict[Any, Any]:
        """Node -> its array, in the type of the data unless a normalisation reads it, or it is no number."""
        values = {}
        for node, name in self.graph.weight_nodes.items():
            array = weights[name]
            if name not in self.graph.norms and jnp.issubdtype(array.dtype, jnp.floating):
                array = array.astype(dtype)
            values[node] = Kernel(array) if name in self.graph.kernels else array
        return values


def export_programs(functions: Functions, shapes: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, bytes]:
    """Name -> serialised program."""
    size, last = functions.network.image_size, functions.boundaries[-1]
    programs = {}
    for dtype in ("float32", "bfloat16"):
        scope = jax.export.SymbolicScope()

        def array(*rest: int, scope: Any = scope, dtype: Any = dtype) -> jax.ShapeDtypeStruct:
            (b,) = jax.export.symbolic_shape("b", scope=scope)
            return jax.ShapeDtypeStruct((b, *rest), dtype)

        x = array(size, size, 3)
        offsets = [array(b.height, b.width, b.dim, dtype="float32") for b in functions.boundaries]
        run = _in_float32(functions.stages)
        results = jax.eval_shape(run, shapes, x, offsets)
        programs[f"stages.{dtype}"] = _export(run, shapes, x, offsets)
        programs[f"stages_back.{dtype}"] = _export(_pull_back(run, 2), shapes, x, offsets, results)
        if functions.network.target is not None:
            programs[f"target.{dtype}"] = _export(_in_float32(functions.target), shapes, x)
            if dtype == "float32":
                _, _, features, context = jax.eval_shape(functions.target, shapes, x)
                complete = functions.complete
                results = jax.eval_shape(complete, shapes, context, features)
                programs["complete"] = _export(complete, shapes, context, features)
                programs["complete_back"] = _export(_pull_back(complete, 1), shapes, context, features, results)
        if functions.blocks:
            (images,) = jax.export.symbolic_shape("b", scope=scope)
            classes = jax.ShapeDtypeStruct((images,), jnp.int32)
            programs[f"attention.{dtype}"] = _export(functions.attention, shapes, x)
            programs[f"attention_gradients.{dtype}"] = _export(functions.attention_gradients, shapes, x, classes)
        if dtype == "float32":
            vector = array(last.dim)
            logits = jax.eval_shape(functions.classify, shapes, vector)
            programs["classify"] = _export(functions.classify, shapes, vector)
            programs["classify_back"] = _export(_pull_back(functions.classify, 1), shapes, vector, logits)
    return programs


def _in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with float32 results, and float32 offsets brought to the type of the images."""

    def run(weights: Weights, x: Array, *offsets: Any) -> Any:
        offsets = jax.tree.map(lambda offset: offset.astype(x.dtype), offsets)
        return jax.tree.map(lambda result: result.astype(jnp.float32), function(weights, x, *offsets))

    return run


def _pull_back(function: Callable[..., Any], count: int) -> Callable[..., Any]:
    """`(weights, *arguments, cotangents) -> cotangents of arguments`, the last `count` of them."""

    def run(*values: Any) -> Any:
        *arguments, cotangents = values
        fixed, moved = arguments[: len(arguments) - count], arguments[len(arguments) - count :]
        return jax.vjp(lambda *moved: function(*fixed, *moved), *moved)[1](cotangents)

    return run


def _export(function: Callable[..., Any], *arguments: Any) -> bytes:
    with jax.default_matmul_precision("highest"), _without_locations():
        exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
    return bytes(exported.serialize())


@contextlib.contextmanager
def _without_locations() -> Iterator[None]:
    """Programs do not say on which lines of which files they were made."""
    before = jax.config.jax_traceback_in_locations_limit  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)
