"""What an evaluation cannot do without, its distinct forward passes, and how far each of its parts is from that."""

from collections.abc import Callable
import statistics
import time
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

import castream_jax as castream
from castream_jax.attribution import Inputs, saliency_maps, upsample
from castream_jax.kernels.pixel_ranks import pixel_ranks
from castream_jax.metrics import scores_of_maps
from castream_jax.metrics.causal import pixels_moved
from castream_jax.model import to_unit_range
from castream_jax.protocol import Protocol


def count_masks(model: castream.Model, pixels: np.ndarray, group: int) -> int:
    """Score-CAM's distinct masked images: one per channel that varies, one black image a call for all constant ones."""
    graphdef, state = nnx.split(model)

    @jax.jit
    def varies(state: Any, images: jax.Array) -> jax.Array:
        features = nnx.merge(graphdef, state).backbone.stages(to_unit_range(images))[-1]
        return features.max((1, 2)) > features.min((1, 2))

    of_groups = [np.asarray(varies(state, pixels[begin : begin + group])) for begin in range(0, len(pixels), group)]
    return sum(int(channels.sum()) + int(not channels.all()) for channels in of_groups)


def count_scored(images: int, size: int, maps: int, protocol: Protocol) -> int:
    """Distinct images that scoring takes beside the unmasked ones, in one call.

    Each image blurred; masked by each map; revealed and erased by each map at the steps between the first and the last;
    and one empty image for all.
    """
    inner = len(pixels_moved(size, size, protocol.rows_per_step, protocol.num_steps)) - 2
    return images * (1 + maps * (1 + 2 * inner)) + 1


def images_per_second(function: Callable[[], object], images: int, at_least: float) -> float:
    """Of a function that takes so many `images`: median of `at_least` seconds of calls, at least 3, after a first."""
    function()
    times: list[float] = []
    while len(times) < 3 or sum(times) < at_least:
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return images / statistics.median(times)


def forward_pass(model: castream.Model, pixels: np.ndarray) -> Callable[[], object]:
    """The compiled forward pass of all `pixels` under all heads: what a distinct image costs at least."""
    graphdef, state = nnx.split(model)
    images = jax.device_put(pixels)
    run = jax.jit(lambda state, images: nnx.merge(graphdef, state).predict(to_unit_range(images)))
    return lambda: jax.block_until_ready(run(state, images))


def time_parts(
    model: castream.Model,
    pixels: np.ndarray,
    labels: np.ndarray,
    methods: tuple[str, ...],
    protocol: Protocol,
    chunk: int,
    at_least: float,
) -> list[tuple[str, int, float]]:
    """`[(part, distinct forward passes, seconds)]` of one call on all `pixels`, each part compiled and timed alone.

    Args:
        at_least: seconds that each part is timed for.
    """
    graphdef, state = nnx.split(model)
    count, height, width = pixels.shape[:3]

    def inputs(state: Any, images: jax.Array) -> Inputs:
        return Inputs(nnx.merge(graphdef, state), to_unit_range(images), jnp.asarray(labels), protocol, chunk)

    def score(state: Any, images: jax.Array, maps: Any) -> Any:
        of = inputs(state, images)
        probabilities = {name: jax.nn.softmax(logits) for name, logits in of.logits.items()}
        return scores_of_maps(of.model, of.pixels, of.labels, maps, probabilities, protocol, chunk)

    def order(maps: Any) -> Any:
        return {key: pixel_ranks(upsample(one, height, width)) for key, one in maps.items()}

    parts = [("trunk pass and logits", count, timed(at_least, lambda s, x: inputs(s, x).logits, state, pixels)[0])]
    maps = {}
    for method in methods:
        seconds, of_method = timed(at_least, lambda s, x, m=method: saliency_maps(inputs(s, x), (m,)), state, pixels)
        maps |= of_method
        passes = count + (count_masks(model, pixels, count) if method == "scorecam" else 0)
        parts.append((f"trunk pass and {method}", passes, seconds))
    parts.append(("order of pixels", 0, timed(at_least, order, maps)[0]))
    passes = count + count_scored(count, height, len(maps), protocol)
    parts.append(
        ("trunk pass and scores, with the order of pixels", passes, timed(at_least, score, state, pixels, maps)[0])
    )
    return parts


def timed(at_least: float, function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Seconds of the compiled `function`, median of `at_least` seconds of calls, one or more; and its result."""
    compiled = jax.jit(function).lower(*arguments).compile()
    times: list[float] = []
    while True:
        begin = time.perf_counter()
        result = jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter() - begin)
        if sum(times) > at_least:
            return statistics.median(times), result
