"""Reads the tensors of a PyTorch file (`.pth`, `.th`, `.pt`) with NumPy alone, running none of its code.

A PyTorch file is a pickle, and a pickle names functions to call. Only those that rebuild a tensor are known
here, and they are replaced by our own; any other name is refused before anything is called. Both containers are
read: the zip archive of PyTorch >= 1.6 and the older stream of pickles that many published weights still use.
"""

import collections
from collections.abc import Callable
import io
from pathlib import Path
import pickle
from typing import Any, BinaryIO, NamedTuple
import zipfile

import ml_dtypes
import numpy as np

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

_STORAGE_DTYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class _Tensor(NamedTuple):
    """A view into a storage whose bytes may not have been read yet."""

    dtype: type
    key: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def materialise(self, storage: bytes) -> np.ndarray:
        itemsize = np.dtype(self.dtype).itemsize
        if not self.shape or 0 not in self.shape:
            last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
            if min((self.offset, *self.strides)) < 0 or (last + 1) * itemsize > len(storage):
                raise ValueError("a tensor reaches beyond its storage")
        flat = np.frombuffer(storage, self.dtype)[self.offset :]
        strides = tuple(stride * itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(flat, self.shape, strides).copy()


class _Unpickler(pickle.Unpickler):
    """Rebuilds containers and tensor descriptions; refuses every other global."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module == "torch" and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        raise pickle.UnpicklingError(
            f"it asks to run {module}.{name}, which a weight file has no need of: save model.state_dict() alone"
        )

    def persistent_load(self, pid: Any) -> tuple[type, str]:
        kind, dtype, key = pid[:3]
        if kind != "storage":
            raise pickle.UnpicklingError(f"it holds an unknown kind of object, {kind!r}")
        return dtype, key


def _rebuild_tensor(storage: tuple[type, str], offset: int, shape: tuple, strides: tuple, *_: Any) -> _Tensor:
    return _Tensor(*storage, offset, tuple(shape), tuple(strides))


def read_torch_file(path: Path) -> Any:
    """The object saved in `path`, its tensors as NumPy arrays.

    Raises:
        ValueError: if the file is truncated, is no PyTorch file, or asks to run code.
    """
    try:
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                return _read_zip(file)
            file.seek(0)
            return _read_legacy(file)
    except (pickle.UnpicklingError, EOFError, zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is truncated, corrupted or no PyTorch weight file: {error}.") from error


def _read_zip(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        (listing,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        root = listing.removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("big-endian files are not supported")
        description = _Unpickler(io.BytesIO(archive.read(listing))).load()
        return _map_tensors(lambda tensor: tensor.materialise(archive.read(f"{root}data/{tensor.key}")), description)


def _read_legacy(file: BinaryIO) -> Any:
    if _Unpickler(file).load() != _LEGACY_MAGIC:
        raise ValueError("its first bytes are not PyTorch's")
    _Unpickler(file).load()  # protocol version
    if not _Unpickler(file).load()["little_endian"]:
        raise ValueError("big-endian files are not supported")
    description = _Unpickler(file).load()
    dtypes: dict[str, type] = {}
    _map_tensors(lambda tensor: dtypes.setdefault(tensor.key, tensor.dtype), description)
    storages = {}
    for key in _Unpickler(file).load():
        size = int.from_bytes(file.read(8), "little") * np.dtype(dtypes[key]).itemsize
        storages[key] = file.read(size)
        if len(storages[key]) != size:
            raise EOFError("the file ends in the middle of a tensor")
    return _map_tensors(lambda tensor: tensor.materialise(storages[tensor.key]), description)


def _map_tensors(function: Callable[[_Tensor], Any], tree: Any) -> Any:
    if isinstance(tree, _Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {key: _map_tensors(function, value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_map_tensors(function, value) for value in tree]
    return tree
