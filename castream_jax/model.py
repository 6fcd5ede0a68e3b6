"""A backbone and its named heads: one trunk pass serves them all."""

from collections.abc import Mapping
import dataclasses
from typing import Any, Literal, TypeVar, get_args

from flax import nnx
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, Key, UInt8
import numpy as np

from castream_jax.backbones.backbone import Backbone, Pixels
from castream_jax.backbones.imported import ImportedBackbone
from castream_jax.backbones.pooled_stages import own_pooling
from castream_jax.protocol import Protocol, get_protocol
from castream_jax.stream import CrossAttentionStream, GlobalAveragePooling, NativePooling, Stages

Head = GlobalAveragePooling | NativePooling | CrossAttentionStream

Resize = Literal["squash", "center_crop", "none"]

_Images = TypeVar("_Images", Array, np.ndarray)


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """How images come to a model, and what its classes are called.

    Attributes:
        size: side of the model's input, in pixels.
        resize: how an image gets that size when the model is evaluated, see `castream_jax.data.record_transforms`.
        class_names: name of class k at position k; empty where they are not known.
        exif_orientation: whether photographs are turned as their EXIF tag says.

    Examples:
        >>> castream.ImageSpec(size=224, resize="center_crop", class_names=("cat", "dog"))
        ImageSpec(size=224, resize='center_crop', class_names=('cat', 'dog'), exif_orientation=False)
    """

    size: int
    resize: Resize = "squash"
    class_names: tuple[str, ...] = ()
    exif_orientation: bool = False

    def __post_init__(self):
        """Raises a ValueError for what is no size, no way of resizing, or no names."""
        if isinstance(self.size, bool) or not isinstance(self.size, int | np.integer) or self.size < 1:
            raise ValueError(f"The size of images must be a whole number of pixels, at least 1, got {self.size!r}.")
        if self.resize not in get_args(Resize):
            raise ValueError(f"resize must be {' or '.join(map(repr, get_args(Resize)))}, got {self.resize!r}.")
        if isinstance(self.class_names, str) or not all(isinstance(name, str) for name in self.class_names):
            raise ValueError(f"class_names must be a sequence of names, got {self.class_names!r}.")
        object.__setattr__(self, "class_names", tuple(self.class_names))


def imported_images(backbone: ImportedBackbone) -> ImageSpec:
    """How images come to an imported trunk, and its classes, as far as it says so itself."""
    trunk = backbone.trunk
    return ImageSpec(trunk.image_size, trunk.resize, trunk.class_names)  # pyright: ignore[reportArgumentType]


def to_unit_range(pixels: UInt8[_Images, "b h w 3"]) -> Float32[_Images, "b h w 3"]:
    """uint8, as it travels to the device, to float32 in [0, 1], as a model takes it."""
    return pixels.astype(jnp.float32) / 255


class Model(nnx.Module):
    """`classify(head(backbone.stages(pixels)))` for every head, the backbone in inference mode.

    Attributes:
        backbone: frozen trunk and classifier.
        heads: name -> head, in the order given.
        images: how images come to it and what its classes are called, where that is known.

    Examples:
        >>> backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
        >>> stream = castream.CrossAttentionStream(backbone.stage_dims, rngs=nnx.Rngs(1))
        >>> model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling(), "ca": stream})
        >>> {head: logits.shape for head, logits in model(jnp.zeros((2, 32, 32, 3))).items()}
        {'gap': (2, 10), 'ca': (2, 10)}
    """

    def __init__(self, backbone: Backbone, heads: Mapping[str, Head], images: ImageSpec | None = None):
        """Raises:
        ValueError: if there is no backbone or no head, a class-specific head has not one query per class, or a module
            has an attribute, such as a list, that cannot be a constant of a compiled program.
        """
        if not isinstance(backbone, nnx.Module):
            raise ValueError(f"A model needs a backbone, got {backbone!r}: load_backbone(name, weights) gives one.")
        if not isinstance(backbone, Backbone):
            raise ValueError(
                f"A model needs a castream.Backbone, got a {type(backbone).__name__}, whose feature maps are not "
                "known: write a Backbone around it, see docs/extend.md."
            )
        if not isinstance(heads, Mapping):
            raise ValueError(f'heads are {{name: head}}, such as {{"ca": stream}}, got {type(heads).__name__}.')
        if not heads:
            raise ValueError('A model needs at least one head, for example {"gap": GlobalAveragePooling()}.')
        for name, head in heads.items():
            if not isinstance(name, str) or not isinstance(head, nnx.Module):
                raise ValueError(f"heads are {{name: head}}, a text and a module each, got {name!r}: {head!r}.")
            if not isinstance(head, Head):
                raise ValueError(
                    f"Head {name!r} is a {type(head).__name__}, and heads are GlobalAveragePooling, NativePooling and "
                    "CrossAttentionStream: what pools otherwise can derive from one of these."
                )
            queries = getattr(head, "num_queries", 1)
            if queries not in (1, backbone.num_classes):
                raise ValueError(
                    f"Head {name!r} has {queries} queries: a stream has 1, or one per class ({backbone.num_classes})."
                )
        backbone.eval()
        self.backbone = backbone
        self.heads = nnx.Dict(heads)
        self.images = images
        _check_constants(self)

    def train(self, **attributes: Any) -> None:
        """Training mode of the heads alone: the trunk is frozen, and BatchNorm statistics of a batch have no place."""
        super().train(**attributes)
        self.backbone.eval()

    def __call__(self, pixels: Pixels) -> dict[str, Float[Array, "b k"]]:
        """Logits of each head; the backbone is in inference mode, whatever was done to it."""
        if _in_training_mode(self.backbone):
            self.backbone.eval()
        return self.logits(self.backbone.stages(pixels))

    def logits(
        self, stages: Stages, query: Int[Array, " b"] | None = None, dropout_keys: Key[Array, " b"] | None = None
    ) -> dict[str, Float[Array, "b k"]]:
        """Logits of each head from stage features.

        Args:
            stages: S0 … SL.
            query: class whose CLS token a class-specific stream starts from: the label in training; by default, as
                in the paper at inference, the class that GAP predicts.
            dropout_keys: in training, of each image, what the dropout of streams is drawn from.
        """
        if query is None:
            query = self.predicted_class(stages)

        def represent(head: Head) -> Float[Array, "b d"]:
            if isinstance(head, CrossAttentionStream) and dropout_keys is not None:
                return head(stages, query, dropout_keys)[0]
            return head(stages, query)[0]

        return {name: self._classify(represent(head)) for name, head in self.heads.items()}

    def _classify(self, representation: Float[Array, "b d"]) -> Float[Array, "b k"]:
        """`backbone.classify`, whose logits must be those of all classes."""
        logits = self.backbone.classify(representation)
        if logits.shape != (expected := (representation.shape[0], self.backbone.num_classes)):
            raise ValueError(
                f"The classifier of {self.backbone.name} must give logits [B, num_classes] = {list(expected)}, got "
                f"{list(logits.shape)}."
            )
        return logits

    def predicted_class(self, stages: Stages) -> Int[Array, " b"]:
        """The baseline's prediction, under GAP or, of a network that pools otherwise, under its own pooling."""
        return jnp.argmax(self._classify(own_pooling(stages)), axis=-1)

    def predict(self, pixels: Pixels, protocol: str | Protocol = "castream") -> dict[str, Float[Array, "b k"]]:
        """Probability of every class under each head, as the protocol defines it: every masked image is scored by it.

        Raises:
            ValueError: for an unknown protocol.
        """
        probabilities = get_protocol(protocol).probabilities
        return {name: probabilities(logits) for name, logits in self(pixels).items()}


def check_model(model: Any) -> None:
    """Raises a ValueError for what is no `Model`."""
    if not isinstance(model, Model):
        given = f"the name {model!r}" if isinstance(model, str) else f"a {type(model).__name__}"
        raise ValueError(
            f'A castream.Model is needed, got {given}: castream.Model(backbone, {{"gap": '
            "castream.GlobalAveragePooling()}) makes one of a backbone."
        )


def _in_training_mode(module: nnx.Module) -> bool:
    return any(
        isinstance(node, nnx.Module)
        and (getattr(node, "use_running_average", None) is False or getattr(node, "deterministic", None) is False)
        for _, node in nnx.iter_graph(module)
    )


def _check_constants(model: Model) -> None:
    """Raises a ValueError that names the attributes that cannot be hashed; compiled programs are found by them."""
    try:
        hash(nnx.split(model)[0])
    except TypeError as error:
        kinds = [
            f"{type(module).__name__}.{name} is a {type(value).__name__}"
            for _, module in nnx.iter_graph(model)
            if isinstance(module, nnx.Module)
            for name, value in vars(module).items()
            if isinstance(value, list | dict | set)
        ]
        raise ValueError(
            f"An attribute of a module must be a constant ({', '.join(kinds) or error}): make it a tuple or, of "
            "modules, an nnx.List or nnx.Dict."
        ) from error


def class_values(
    values: Mapping[str, Float[Array, "n k"]], classes: Mapping[str, Int[Array, " b"]], images: Int[Array, " n"]
) -> Float[Array, "n heads"]:
    """Values of one class in each row, head by head.

    Args:
        values: `[n, K]` of each head: a row for each masked image.
        classes: the class of each image under each head, `[B]`.
        images: the image that each row was made from, `[n]`.
    """
    columns = [
        jnp.take_along_axis(values[head], head_classes[images][:, None], axis=1)
        for head, head_classes in classes.items()
    ]
    return jnp.concatenate(columns, axis=1)
