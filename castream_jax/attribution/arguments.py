"""What `attribute` and `score` are given and give, checked once: type, shape, range and finiteness.

Values are looked at where they are concrete; inside a trace nothing is checked, and nothing costs.
"""

from collections.abc import Iterable, Mapping, Sequence
import functools
from typing import Any

import jax
from jax.core import Tracer
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int32
import numpy as np

from castream_jax.attribution.methods import METHODS, parse_method
from castream_jax.backbones.backbone import AnyArray
from castream_jax.concrete import check_range, extremes, is_concrete
from castream_jax.model import Model
from castream_jax.protocol import Protocol


def check_pixels(pixels: Any) -> Float[Array, "b height width 3"]:
    """`pixels` as an array, or a ValueError that says what is wrong with them."""
    if not isinstance(pixels, np.ndarray | jax.Array):
        raise ValueError(
            f"pixels must be an array [B, H, W, 3], got {type(pixels).__name__}: use numpy.stack on the images."
        )
    shape = list(pixels.shape)
    if pixels.ndim == 3 and shape[-1] == 3:
        raise ValueError(f"pixels must be [B, H, W, 3], got one image, {shape}: give pixels[None].")
    if pixels.ndim != 4 or shape[-1] != 3:
        raise ValueError(f"pixels must be [B, H, W, 3], RGB, got {shape}.")
    if 0 in shape:
        raise ValueError(f"pixels must hold at least one image of at least one pixel, got {shape}.")
    if not jnp.issubdtype(pixels.dtype, jnp.floating):
        hint = ": divide 8-bit values by 255" if jnp.issubdtype(pixels.dtype, jnp.integer) else ""
        raise ValueError(f"pixels must be floating point in [0, 1], got {pixels.dtype}{hint}.")
    pixels = native(pixels)
    check_range("pixels", pixels, "the model normalises them itself, and 8-bit values are divided by 255")
    return pixels if isinstance(pixels, jax.Array) else jax.device_put(pixels)  # jnp.asarray compiles a program


def native(values: AnyArray) -> AnyArray:
    """Real numbers in a type that JAX takes: what has another byte order or extended precision becomes float32.

    Raises:
        ValueError: some of them are masked; JAX would read what lies below the mask.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise ValueError(
            "A masked array was given, and there is no image without some of its pixels: use .filled(value)."
        )
    if isinstance(values, np.ndarray) and not (values.dtype.isnative and values.dtype.itemsize <= 8):
        return values.astype(np.float32)
    return values


def check_labels(model: Model, pixels: AnyArray, labels: Int[AnyArray, "..."]) -> Int32[Array, " b"]:
    """`labels` as int32 `[B]`, or a ValueError that says what is wrong with them."""
    if not isinstance(labels, Tracer | jax.Array):
        try:
            labels = np.asarray(labels)
        except ValueError:
            raise ValueError("labels must be [B], one class number per image, got lists of several lengths.") from None
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels must be class numbers, of an integer type, got {labels.dtype}.")
    if jnp.shape(labels) != pixels.shape[:1]:
        raise ValueError(
            f"labels must be [B] = [{pixels.shape[0]}], one class per image, got {list(jnp.shape(labels))}."
        )
    if is_concrete(labels):
        low, high = map(int, extremes(labels))
        if low < 0 or high >= model.backbone.num_classes:
            raise ValueError(f"labels must lie in 0 … {model.backbone.num_classes - 1}, got {low} … {high}.")
    return jnp.asarray(labels, jnp.int32)


def check_methods(model: Model, methods: Sequence[str], protocol: Protocol) -> tuple[str, ...]:
    """`methods` as a tuple, each once, or a ValueError that says what the model cannot be explained by."""
    methods = tuple(dict.fromkeys(check_texts("methods", methods)))
    if not methods:
        raise ValueError(f"No attribution method was given: choose from {', '.join(METHODS)}.")
    last = len(model.backbone.stage_dims) - 1
    if protocol.target_stage is not None and not 0 <= protocol.target_stage <= last:
        raise ValueError(
            f"The protocol has target_stage={protocol.target_stage}: "
            f"the stages of {model.backbone.name} are 0 … {last}."
        )
    for text in methods:
        method, numbers, _ = parse_method(text)
        if method.check is not None:
            method.check(model, protocol, *numbers)
    return methods


def check_texts(what: str, texts: Any) -> tuple[str, ...]:
    """A sequence of names as a tuple, or a ValueError: one text is itself a sequence, of its letters."""
    if isinstance(texts, str):
        raise ValueError(f"{what} must be a sequence of names, such as ({texts!r},), got the text {texts!r}.")
    if not isinstance(texts, Iterable):
        raise ValueError(f"{what} must be a sequence of names, got {texts!r}.")
    texts = tuple(texts)
    strangers = [text for text in texts if not isinstance(text, str)]
    if strangers:
        raise ValueError(f"{what} must be a sequence of names, and one of these is {strangers[0]!r}.")
    return texts


def check_chunk(chunk: int) -> int:
    """`chunk`, or a ValueError if it is no number of images."""
    if isinstance(chunk, bool) or not isinstance(chunk, int | np.integer) or chunk < 1:
        raise ValueError(f"chunk must be a whole number of masked images, at least 1, got {chunk!r}.")
    return int(chunk)


def check_probability(model: Model, protocol: Protocol) -> None:
    """Raises a ValueError where a class probability would say nothing."""
    if model.backbone.num_classes == 1 and protocol.probability == "softmax":
        raise ValueError(
            f"The model has one class, whose softmax is always 1, so that protocol {protocol.name!r} measures nothing: "
            'use a protocol with probability="sigmoid".'
        )


def check_finite(outputs: Mapping[tuple[str, str], Sequence[AnyArray]]) -> None:
    """Raises a ValueError if what was computed of a (head, method), `[B, …]`, is concrete and not finite."""
    concrete = {key: list(values) for key, values in outputs.items() if all(map(is_concrete, values))}
    if not concrete:
        return
    finite_of = dict(zip(concrete, np.asarray(_are_finite(list(concrete.values()))), strict=True))
    for (head, method), finite in finite_of.items():
        if not finite.all():
            raise ValueError(
                f"The model's output is not finite on image {int(finite.argmin())} of {len(finite)}: look at its "
                f"weights, at the type it computes in, and at the method {method!r} (under head {head!r})."
            )


def needs_chunk(methods: Sequence[str]) -> bool:
    """Whether any of `methods` reads `Inputs.chunk`."""
    return any(parse_method(text).method.chunked for text in methods)


@jax.jit
def _are_finite(outputs: list[list[Array]]) -> Bool[Array, "outputs b"]:
    """Of each output, whether all that was computed for an image is finite."""
    return jnp.stack(
        [
            functools.reduce(
                jnp.logical_and, (jnp.isfinite(values).reshape(values.shape[0], -1).all(1) for values in output)
            )
            for output in outputs
        ]
    )
