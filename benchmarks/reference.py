"""The reference arrays, which are kept outside the project, and the model whose outputs they hold."""

import os
from pathlib import Path

from flax import nnx
import numpy as np

import castream_jax as castream
from castream_jax.kernels.precision import Dtype

_ARRAYS = Path("golden", "castream_cifar10_resnet20.npz")  # 200 CIFAR-10 images through the official code

SHARED = Path(os.environ.get("CASTREAM_SHARED") or Path(__file__).resolve().parents[2] / "shared")
ABSENT = "" if (SHARED / _ARRAYS).is_file() else f"there are no reference arrays in {SHARED}: set CASTREAM_SHARED"


def load_arrays() -> dict[str, np.ndarray]:
    with np.load(SHARED / _ARRAYS) as arrays:
        return dict(arrays)


def make_model(arrays: dict[str, np.ndarray], dtype: Dtype = "float32") -> castream.Model:
    """The published ResNet-20 under GAP and under the reference stream."""
    backbone = castream.load_backbone("cifar_resnet20", SHARED / "weights" / "resnet20-12fca82f.th", dtype=dtype)
    stream = castream.CrossAttentionStream(backbone.stage_dims, rngs=nnx.Rngs(0))
    load_stream(stream, arrays)
    return castream.Model(backbone, {"gap": castream.GlobalAveragePooling(), "ca": stream})


def load_stream(stream: castream.CrossAttentionStream, arrays: dict[str, np.ndarray]) -> None:
    """A stream's weights under official names, alone or among other arrays as "stream/…"."""
    prefix = "stream/" if any(name.startswith("stream/") for name in arrays) else ""
    names = [name for name in arrays if name.startswith(prefix)]
    castream.load_torch_stream(stream, {name.removeprefix(prefix): arrays[name] for name in names})
