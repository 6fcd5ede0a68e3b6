"""What a source holds, as one number: other images, or other content under the same names, give another one."""

import hashlib
import os
from typing import Any

import numpy as np

from castream_jax.data.decode import EncodedImage
from castream_jax.data.source import Source, open_record, stored_labels

_READ = 256  # records whose content is read


def content_digest(source: Source, *, sizes: bool) -> str:
    """SHA-256 over the names of classes and records, the labels, and the content of 256 records, evenly spread.

    Args:
        source: any; files are read as they are, so that even one that cannot be decoded counts.
        sizes: whether the sizes of all files count, for which the file system is asked once per file.
    """
    count, labels = len(source), stored_labels(source)
    digest = hashlib.sha256(_encoded(source.class_names, None if labels is None else labels.tolist()))
    digest.update(_encoded([source.name(index) for index in range(count)]))
    for index in np.unique(np.linspace(0, count - 1, min(count, _READ)).astype(int)).tolist():
        digest.update(_content(open_record(source, index)["pixels"]))
    if sizes and getattr(open_record(source, 0)["pixels"], "path", None) is not None:
        digest.update(_encoded([_size(open_record(source, index)["pixels"]) for index in range(count)]))
    return digest.hexdigest()


def _content(image: Any) -> bytes:
    if not isinstance(image, EncodedImage):
        return np.asarray(image).tobytes()
    try:
        return image.stored()
    except (OSError, ValueError):
        return b"unreadable"


def _size(image: EncodedImage) -> int:
    assert image.path is not None
    try:
        return os.path.getsize(image.path)
    except OSError:
        return -1


def _encoded(*values: Any) -> bytes:
    return repr(values).encode(errors="surrogateescape")  # names of files need not be UTF-8
