"""Random-access sources of labelled images: a folder of files, or a prepared TFDS dataset.

A source is a sequence of records with two extra things, the names of its classes and a name for each record.
`grain` reads it from several threads at once, so `__getitem__` holds no state.
"""

import io
import os
from pathlib import Path
from typing import Any, BinaryIO, NotRequired, Protocol, TypedDict

from jaxtyping import Float32, UInt8
import numpy as np
from PIL import Image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")


class Record(TypedDict):
    """One labelled image, on the host."""

    pixels: UInt8[np.ndarray, "h w 3"]  # RGB, 0 to 255
    label: np.int32
    index: int  # position in the source
    box: NotRequired[Float32[np.ndarray, "4"]]  # x0, y0, x1, y1 in pixels; x1 and y1 lie outside the object


class Source(Protocol):
    """What the loaders need to know of a dataset."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of class `k` at position `k`."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...

    def name(self, index: int) -> str:
        """Stable, readable name of a record: a relative path, or an identifier."""
        ...


class ImageFolder:
    """Images in one folder per class: `root/split/<class>/**/<image>`.

    Classes are numbered in alphabetical order of their folders; records run through the classes in that order
    and alphabetically within each. Hidden files and files that are no images are passed over.

    Pixels are what Pillow's `convert("RGB")` makes of a file, whether it is grey, CMYK or palettised. An EXIF
    orientation is *not* applied: torchvision ignores it too, and published ImageNet accuracies rest on that.
    """

    def __init__(self, root: str | os.PathLike[str], split: str = ""):
        """Lists the files; opens none.

        Args:
            root: folder of the dataset.
            split: sub-folder to read, such as "train"; "" if the classes lie directly under `root`.

        Raises:
            FileNotFoundError: the folder is missing, or holds no class folder.
            ValueError: some class folders hold no image; names all of them.
        """
        self._root = Path(root)
        folder = self._root / split
        if not folder.is_dir():
            raise FileNotFoundError(
                f"image folder '{folder}' does not exist; it must hold one sub-folder of images per class"
            )
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
        if not names:
            raise FileNotFoundError(
                f"image folder '{folder}' has no sub-folders; it must hold one sub-folder of images per class"
            )
        files_of_class = [sorted(_image_files(folder / name)) for name in names]
        empty = [name for name, files in zip(names, files_of_class, strict=True) if not files]
        if empty:
            raise ValueError(
                f"class folders without images in '{folder}': {', '.join(empty)}; add images or remove the folders"
            )
        self._class_names = tuple(names)
        self._files = [file for files in files_of_class for file in files]
        sizes = [len(files) for files in files_of_class]
        self._labels = np.repeat(np.arange(len(names), dtype=np.int32), sizes)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._class_names

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Record:
        """Decodes one image.

        Raises:
            ValueError: the file cannot be decoded; names it.
        """
        file = self._files[index]
        try:
            pixels = decode_rgb(file)
        except _DECODE_ERRORS as error:
            raise ValueError(f"cannot read image '{file}' ({error}); replace or remove the file") from error
        return {"pixels": pixels, "label": self._labels[index], "index": index}

    def name(self, index: int) -> str:
        """Path of the file relative to `root`, with forward slashes."""
        return Path(self._files[index]).relative_to(self._root).as_posix()


class TfdsSource:
    """A split of a prepared TFDS dataset in ArrayRecord format, read without TensorFlow.

    It needs the features "image" and "label" (a `ClassLabel`). Images are decoded as in `ImageFolder`.
    """

    def __init__(self, directory: str | os.PathLike[str], split: str):
        """Opens the dataset.

        Args:
            directory: folder that holds `dataset_info.json`, usually `<data_dir>/<name>/<version>`.
            split: name of a split, or a slice of one in TFDS notation, such as "train[:90%]".

        Raises:
            ImportError: `tensorflow-datasets` is not installed.
            FileNotFoundError: the folder holds no prepared dataset.
            ValueError: the split or a feature is unknown, or the file format has no random access.
        """
        try:
            import tensorflow_datasets as tfds  # slow to import, and only this source needs it
        except ImportError as error:
            raise ImportError("reading TFDS datasets needs: pip install tensorflow-datasets") from error

        if not (Path(directory) / "dataset_info.json").is_file():
            raise FileNotFoundError(
                f"no prepared TFDS dataset in '{directory}'; "
                "give the folder that holds dataset_info.json, usually <data_dir>/<name>/<version>"
            )
        builder: Any = tfds.builder_from_directory(str(directory))  # its annotations do not describe it
        features = builder.info.features
        if not {"image", "label"} <= set(features):
            raise ValueError(
                f"TFDS dataset '{directory}' has the features {sorted(features)}; 'image' and 'label' are needed"
            )
        try:
            # Encoded bytes, so that every source decodes alike, whether or not OpenCV is installed.
            self._records = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        except NotImplementedError as error:
            raise ValueError(
                f"TFDS dataset '{directory}' is stored in a format without random access; "
                "prepare it again with file_format='array_record'"
            ) from error
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"TFDS dataset '{directory}' has no split '{split}'; it has {sorted(builder.info.splits)}"
            ) from error
        self._class_names = tuple(features["label"].names)
        self._name_stem = f"{builder.name}/{split}"

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._class_names

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        """Decodes one image.

        Raises:
            ValueError: the image cannot be decoded; names the record.
        """
        record = self._records[index]
        try:
            pixels = decode_rgb(io.BytesIO(record["image"]))
        except _DECODE_ERRORS as error:
            raise ValueError(f"cannot read image '{self.name(index)}' ({error}); prepare the dataset again") from error
        return {"pixels": pixels, "label": np.int32(record["label"]), "index": index}

    def name(self, index: int) -> str:
        """`<dataset>/<split>/<index>`: TFDS keeps file names of some datasets only."""
        return f"{self._name_stem}/{index:08d}"


# What Pillow raises on damaged files; SyntaxError is its way of saying "broken PNG".
_DECODE_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def decode_rgb(file: str | BinaryIO) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes an image file to RGB, as Pillow and torchvision do."""
    with Image.open(file) as image:
        if image.mode == "P" and "transparency" in image.info:
            # The same colours, without Pillow's warning about transparent palettes.
            image = image.convert("RGBA")
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _image_files(folder: Path) -> list[str]:
    """Paths of all images below `folder`, in no particular order."""
    files: list[str] = []
    pending = [os.fspath(folder)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.name.lower().endswith(IMAGE_SUFFIXES):
                    files.append(entry.path)
                elif entry.is_dir():
                    pending.append(entry.path)
    return files
