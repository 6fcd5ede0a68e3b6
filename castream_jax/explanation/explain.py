"""Images -> explanations: one compiled program, one trunk pass for all heads of a batch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
import itertools
from typing import Any, NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt8
import numpy as np

from castream_jax.attribution import Inputs, saliency_maps
from castream_jax.attribution.arguments import check_chunk, check_methods, check_probability, check_texts, needs_chunk
from castream_jax.attribution.chunk_size import chunk_for
from castream_jax.backbones.imported import ImportedBackbone
from castream_jax.backbones.registry import get_architecture
from castream_jax.data.decode import UnreadableImageError
from castream_jax.data.imagenet import imagenet_classes
from castream_jax.explanation.class_number import class_number
from castream_jax.explanation.explanation import Explanation
from castream_jax.explanation.given_images import Seen, are_images, is_image, read_image
from castream_jax.model import ImageSpec, Model, check_model, imported_images, to_unit_range
from castream_jax.protocol import Protocol, get_protocol
from castream_jax.runtime.mesh import OverImages
from castream_jax.stream import CrossAttentionStream
from castream_jax.weights.entries import imagenet_entries

BATCH_SIZE = 8  # more per trunk pass is no faster on a CPU, and the first result would come later


class _Results(NamedTuple):
    """Of a batch and, but for the maps, per head: probabilities, explained class, maps, attention of each stage."""

    probabilities: dict[str, Any]  # [B, K]
    classes: dict[str, Any]  # [B]
    maps: dict[tuple[str, str], Any]  # [B, h, w]
    attention: dict[str, tuple[Any, ...]]  # [B, n, h_l, w_l]


def explain(
    model: Model,
    image: Any,
    *,
    methods: Sequence[str] | None = None,
    heads: Sequence[str] | None = None,
    label: SupportsIndex | str | None = None,
    protocol: str | Protocol = "castream",
    chunk: int | None = None,
) -> Explanation:
    """Predicted classes, saliency maps and attention of one image, from one trunk pass.

    Args:
        model: backbone with heads, see `explain_many`.
        image: a path, a PIL image of any mode, or an array `[h, w, 3]` or `[h, w]`, see `explain_many`.
        methods, heads, label, protocol, chunk: see `explain_many`.

    Raises:
        TypeError: for several images, or what is no image.
        ValueError, UnreadableImageError: see `explain_many`.
    """
    if are_images(image):
        raise TypeError(f"explain takes one image, got {_described(image)}: explain_many takes several.")
    options: dict[str, Any] = {"methods": methods, "heads": heads, "label": label, "protocol": protocol, "chunk": chunk}
    return next(explain_many(model, [image], batch_size=1, **options))


def explain_many(
    model: Model,
    images: Iterable[Any],
    *,
    methods: Sequence[str] | None = None,
    heads: Sequence[str] | None = None,
    label: SupportsIndex | str | None = None,
    protocol: str | Protocol = "castream",
    batch_size: int = BATCH_SIZE,
    chunk: int | None = None,
    unreadable: Callable[[UnreadableImageError], None] | None = None,
) -> Iterator[Explanation]:
    """Explains images, in their order and as they are asked for.

    Args:
        model: backbone with heads. `model.images` says how images come to its size and names the classes; by default
            they are squashed to the size of the architecture's published weights.
        images: paths, PIL images of any mode, or arrays `[h, w, 3]` or `[h, w]`, uint8, uint16 or floating point in
            [0, 1]; or one array `[B, h, w, 3]`. An EXIF orientation is applied where `model.images` says so, else
            warned of.
        methods: see `castream_jax.attribute`; by default `default_methods`.
        heads: names of the heads to explain; by default all.
        label: class to explain, by number or name, by default each head's own prediction. A text is a name where a
            class is called so, even `"2"`; a warning says which class is taken where names are other numbers.
        protocol: the choices that maps and probabilities follow; which class is explained is up to `label`.
        batch_size: images per trunk pass; a batch that is not full is filled up, so that one program serves all.
        chunk: see `castream_jax.attribute`.
        unreadable: told of each image that cannot be decoded, which is then passed over; by default that is an error.

    Raises:
        TypeError: for one image alone, or what is no image.
        ValueError: for an unknown head, method, protocol or class, or an array that is no image.
        UnreadableImageError: for a file that is no image.
    """
    if not are_images(images):
        hint = ": explain takes one" if is_image(images) else ""
        raise TypeError(f"explain_many takes several images, got {_described(images)}{hint}.")
    check_model(model)
    spec = image_spec(model)
    model = _with_heads(model, heads)
    protocol = get_protocol(protocol)
    check_probability(model, protocol)
    names = check_methods(model, default_methods(model) if methods is None else methods, protocol)
    target = -1 if label is None else class_number(label, spec.class_names, model.backbone.num_classes)
    protocol = dataclasses.replace(protocol, target_class="predicted" if label is None else "label")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"The batch size must be positive, got {batch_size!r}.")
    if chunk is None:
        chunk = chunk_for(model, spec.size, spec.size) if needs_chunk(names) else 1
    chunk = check_chunk(chunk)

    def run(pixels: UInt8[np.ndarray, "b h w 3"]) -> _Results:
        labels = jnp.full(len(pixels), max(target, 0), jnp.int32)
        return jax.device_get(
            _explain(model, jnp.asarray(pixels), labels, methods=names, protocol=protocol, chunk=chunk)
        )

    return _explanations(_readable(images, spec, unreadable), run, model, spec, names, protocol, batch_size)


def _described(images: Any) -> str:
    shape = getattr(images, "shape", None)
    return type(images).__name__ if shape is None else f"an array {list(shape)}"


def default_methods(model: Model) -> tuple[str, ...]:
    """Raw attention where there is a stream, and Grad-CAM: the maps that cost no further trunk pass."""
    streams = any(isinstance(head, CrossAttentionStream) for head in model.heads.values())
    return ("attention", "gradcam") if streams else ("gradcam",)


def image_spec(model: Model) -> ImageSpec:
    """`model.images`; what it leaves open is as with the published weights of the architecture.

    A classifier of as many classes as published ImageNet weights have is taken to have theirs.
    """
    if isinstance(model.backbone, ImportedBackbone):
        return model.images or imported_images(model.backbone)
    architecture = get_architecture(model.backbone.name) if model.images is None else None
    spec = model.images or ImageSpec(architecture.input_size if architecture else 224)
    imagenet = imagenet_entries(model.backbone.name) and model.backbone.num_classes == len(imagenet_classes())
    if not spec.class_names and imagenet:
        spec = dataclasses.replace(spec, class_names=tuple(imagenet_classes().values()))
    return spec


def _with_heads(model: Model, heads: Sequence[str] | None) -> Model:
    if heads is None:
        return model
    heads = check_texts("heads", heads)
    unknown = [head for head in heads if head not in model.heads]
    if unknown or not heads:
        named = f"no head {unknown[0]!r}" if unknown else "no head asked for"
        raise ValueError(f"There is {named}: the model's heads are {', '.join(model.heads)}.")
    return Model(model.backbone, {name: head for name, head in model.heads.items() if name in heads}, model.images)


def _readable(
    images: Iterable[Any], spec: ImageSpec, unreadable: Callable[[UnreadableImageError], None] | None
) -> Iterator[Seen]:
    for image in images:
        try:
            yield read_image(image, spec)
        except UnreadableImageError as error:
            if unreadable is None:
                raise
            unreadable(error)


def _explanations(
    seen: Iterator[Seen],
    run: Callable[[np.ndarray], _Results],
    model: Model,
    spec: ImageSpec,
    methods: tuple[str, ...],
    protocol: Protocol,
    batch_size: int,
) -> Iterator[Explanation]:
    starts = {name: getattr(head, "start_stage", 0) for name, head in model.heads.items()}
    rows = 0  # of the compiled program: not many more than there are images
    while batch := list(itertools.islice(seen, batch_size)):
        rows = rows or min(batch_size, max(len(batch), BATCH_SIZE))
        padded = [*batch, *[batch[-1]] * (rows - len(batch))]
        results = run(np.stack([image.pixels for image in padded]))
        for i, image in enumerate(batch):
            if not all(np.isfinite(values[i]).all() for values in results.probabilities.values()):
                raise ValueError(f"{image.name}: the model's output is not finite: look at the model's weights.")
            for (head, method), maps in results.maps.items():
                if not np.isfinite(maps[i]).all():
                    raise ValueError(f"{image.name}: the map of {method!r} under head {head!r} is not finite.")
            yield Explanation(
                name=image.name,
                pixels=image.pixels,
                picture=image.picture,
                class_names=spec.class_names,
                probabilities={head: results.probabilities[head][i] for head in model.heads},
                classes={head: int(results.classes[head][i]) for head in model.heads},
                maps={
                    (head, method): results.maps[head, method][i]
                    for method in methods
                    for head in model.heads  # in the order given: JAX sorts the keys of a dict
                    if (head, method) in results.maps
                },
                attention={
                    head: {start + number: stage[i] for number, stage in enumerate(results.attention[head])}
                    for head, start in starts.items()
                    if results.attention[head]
                },
                protocol=protocol,
                orientation_ignored=image.orientation_ignored,
            )


@OverImages
def _explain(
    model: Model,
    pixels: UInt8[Array, "b h w 3"],
    labels: Int[Array, " b"],
    *,
    methods: tuple[str, ...],
    protocol: Protocol,
    chunk: int,
) -> _Results:
    inputs = Inputs(model, to_unit_range(pixels), labels, protocol, chunk)
    return _Results(
        probabilities={head: protocol.probabilities(logits) for head, logits in inputs.logits.items()},
        classes={head: inputs.classes(head) for head in model.heads},
        maps=saliency_maps(inputs, methods),
        attention={name: head(inputs.stages, inputs.query)[1] for name, head in model.heads.items()},
    )
