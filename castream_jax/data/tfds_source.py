"""Prepared TFDS datasets in ArrayRecord format, read without TensorFlow."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from castream_jax.data.decode import Decoding, EncodedImage
from castream_jax.data.imagenet import imagenet_classes
from castream_jax.data.source import Record


class TfdsSource:
    """A split of any prepared TFDS dataset with one image and one class per example.

    The features are found by their names, "image" and "label", or as the only image and the only `ClassLabel` there
    are. A `BBoxFeature` called "bbox" (CUB-200-2011 and others have one) becomes the record's box. Names of classes
    that are ImageNet's WordNet ids are translated. Images are decoded as files are.

    Attributes:
        decoding: how they are decoded.
        has_boxes: whether records have a box.
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
        self._image = _only(features, "image", tfds.features.Image, directory)
        self._label = _only(features, "label", tfds.features.ClassLabel, directory)
        self.decoding = Decoding()
        self.has_boxes = "bbox" in features and isinstance(features["bbox"], tfds.features.BBoxFeature)
        try:
            # Encoded bytes, so that every source decodes alike, whether or not OpenCV is installed.
            self._records = builder.as_data_source(split, decoders={self._image: tfds.decode.SkipDecoding()})
        except NotImplementedError as error:
            raise ValueError(
                f"TFDS dataset '{directory}' is stored in a format without random access; "
                "prepare it again with file_format='array_record'"
            ) from error
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"TFDS dataset '{directory}' has no split '{split}'; it has {sorted(builder.info.splits)}"
            ) from error
        names: list[str] = features[self._label].names
        self._class_names = tuple(imagenet_classes().get(name, name) for name in names)
        self._name_stem = f"{builder.name}/{split}"

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._class_names

    def __len__(self) -> int:
        return len(self._records)

    def open(self, index: int) -> dict[str, Any]:
        """The record with its image still encoded.

        Raises:
            UnreadableImageError: this is no image; names the record.
        """
        example = self._records[index]
        remedy = "prepare the dataset again"
        image = EncodedImage(bytes(example[self._image]), self.name(index), remedy, self.decoding)
        record: dict[str, Any] = {"pixels": image, "label": np.int32(example[self._label]), "index": index}
        if self.has_boxes:
            y0, x0, y1, x1 = example["bbox"]  # as fractions of the sides
            height, width = image.size
            record["box"] = np.array([x0 * width, y0 * height, x1 * width, y1 * height], np.float32)
        return record

    def __getitem__(self, index: int) -> Record:
        """Decodes one image.

        Raises:
            UnreadableImageError: the image cannot be decoded; names the record.
        """
        record: Any = self.open(index)
        return record | {"pixels": record["pixels"].pixels()}

    def name(self, index: int) -> str:
        """`<dataset>/<split>/<index>`: TFDS keeps file names of some datasets only."""
        return f"{self._name_stem}/{index:08d}"


def _only(features: Any, name: str, kind: type, directory: str | os.PathLike[str]) -> str:
    """Name of the feature `name`, or of the only one of its kind."""
    alike = [key for key, feature in features.items() if isinstance(feature, kind)]
    if name in alike:
        return name
    if len(alike) == 1:
        return alike[0]
    raise ValueError(
        f"TFDS dataset '{directory}' has the features {sorted(features)}, of which {len(alike)} are a {kind.__name__}; "
        f"one is needed, or one that is called '{name}'"
    )
