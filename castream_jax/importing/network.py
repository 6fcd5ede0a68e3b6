"""What is known of a PyTorch network before it is converted."""

from collections.abc import Sequence
import dataclasses
from typing import Any, Literal

from castream_jax.backbones.normalisation import normalisation

Layout = Literal["nchw", "nhwc", "tokens"]

LAST = "last"  # the mark of the last boundary


@dataclasses.dataclass(frozen=True)
class Network:
    """A classifier of images, and where in it the feature maps lie.

    Attributes:
        name: shown in reports; `"timm:resnet50d"`.
        module: a `torch.nn.Module` in inference mode, from `[B, 3, H, W]` to logits `[B, K]`.
        image_size: side of its images, in pixels.
        mean, std: per-channel normalisation of pixels in [0, 1].
        taps: sub-modules, by name, whose outputs are boundaries, in the order of the computation.
        last: how the last boundary, what is pooled, is found: `"forward_features"`, a method of `module` that
            `forward_head` completes, or the name of a sub-module.
        pooled: what the network itself makes of the last boundary: the `"average"` of its positions, its class
            `"token"`, or the output of the sub-module of this name.
        classifier: sub-module that is given the pooled vector; None: what follows the last boundary is given a map
            that is the same everywhere.
        prefix_tokens: tokens before those of the patches.
        grid: rows and columns of patches of a transformer; None where they make a square.
        target: of a network whose class token, or whose own pooling, is no function of the patches of the last
            boundary: the last block, and the normalisation in it whose patches class activation maps weigh.
        attention: of a transformer, each block and the sub-module in it that hands on its attention `[B, heads, n, n]`.
        resize: how images get `image_size`, see `ImageSpec`.
        class_names: name of class k at position k; empty where they are not known.
    """

    name: str
    module: Any
    image_size: int
    mean: Sequence[float]
    std: Sequence[float]
    taps: tuple[str, ...]
    last: str
    pooled: str = "average"
    classifier: str | None = None
    prefix_tokens: int = 0
    grid: tuple[int, int] | None = None
    target: tuple[str, str] | None = None
    attention: tuple[tuple[str, str], ...] = ()
    resize: Literal["squash", "center_crop", "none"] = "squash"
    class_names: tuple[str, ...] = ()

    def place(self, mark: str) -> str:
        """What the mark of a boundary stands at: `last`, or the sub-module of its name."""
        return self.last if mark == LAST else mark

    def __post_init__(self):
        if self.image_size < 1:
            raise ValueError(f"image_size must be positive, got {self.image_size}.")
        for name, values in zip(("mean", "std"), normalisation(self.mean, self.std), strict=True):
            object.__setattr__(self, name, values)
