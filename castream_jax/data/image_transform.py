"""From an image file to the pixels that a model was evaluated on."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float32, UInt8
import numpy as np

from castream_jax.config import base_config
from castream_jax.data.decode import EncodedImage
from castream_jax.data.from_config import record_transforms


class ImageTransform(NamedTuple):
    """How images of any size become a model's input.

    Attributes:
        image_size: side of the input, in pixels.
        resize: "squash", "center_crop", or "none" where the images have their size already.
    """

    image_size: int
    resize: str

    def __call__(self, image: str | os.PathLike[str] | UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "s s 3"]:
        """Pixels in [0, 1] of an image file, or of an RGB array.

        Raises:
            UnreadableImageError: if there is no such image.
        """
        given: Any = image if isinstance(image, np.ndarray) else EncodedImage(Path(image), str(image)).pixels()
        data = base_config().data
        data.update(image_size=self.image_size, resize=self.resize)
        record: Any = {"pixels": given}
        for transform in record_transforms(data, train=False):
            record = transform.map(record)  # pyright: ignore[reportAttributeAccessIssue]
        return np.asarray(record["pixels"], np.float32) / np.float32(255)
