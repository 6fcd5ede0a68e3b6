"""A tiny TFDS dataset is prepared here with TFDS's public API: given encoded images, that needs no TensorFlow."""

import io
import json
from pathlib import Path
import re
import shutil
import sys

import numpy as np
from PIL import Image
import pytest

from castream_jax.data import TfdsSource

tfds = pytest.importorskip("tensorflow_datasets")

COUNT = 6


def _image(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, size=(5, 7, 3), dtype=np.uint8)


def _encode(image: Image.Image) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, "PNG")
    file.seek(0)
    return file


class TinyImages(tfds.core.GeneratorBasedBuilder):
    """Six colour images for training, the same in grey for testing."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = Path(__file__).parent  # TFDS looks for a description here; there is none
    label_key = "label"

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, None)),
            self.label_key: tfds.features.ClassLabel(names=["cat", "dog"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(), "test": self._generate_examples(grey=True)}

    def _generate_examples(self, grey: bool = False):
        for index in range(COUNT):
            image = Image.fromarray(_image(index))
            yield index, {"image": _encode(image.convert("L") if grey else image), self.label_key: index % 2}


def _prepare(data_dir: Path) -> Path:
    builder = TinyImages(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_dir)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return _prepare(tmp_path_factory.mktemp("tfds"))


def test_reads_every_record_without_tensorflow(prepared):
    source = TfdsSource(prepared, "train")
    assert len(source) == COUNT
    assert source.class_names == ("cat", "dog")
    found = set()
    for position in range(COUNT):
        record = source[position]
        (index,) = [i for i in range(COUNT) if np.array_equal(record["pixels"], _image(i))]
        assert record["label"] == index % 2
        assert record["label"].dtype == np.int32
        assert record["index"] == position
        found.add(index)
    assert found == set(range(COUNT))
    assert "tensorflow" not in sys.modules


def test_grey_images_become_rgb_and_splits_can_be_sliced(prepared):
    source = TfdsSource(prepared, "test[:50%]")
    assert len(source) == COUNT // 2
    pixels = source[0]["pixels"]
    assert pixels.shape == (5, 7, 3)
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_name_tells_dataset_split_and_position(prepared):
    assert TfdsSource(prepared, "train").name(3) == "tiny_images/train/00000003"


def test_folder_without_dataset_is_named(tmp_path):
    sentence = (
        f"no prepared TFDS dataset in '{tmp_path}'; "
        "give the folder that holds dataset_info.json, usually <data_dir>/<name>/<version>"
    )
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(sentence)}$"):
        TfdsSource(tmp_path, "train")


def test_unknown_split_is_named_beside_those_that_exist(prepared):
    sentence = f"TFDS dataset '{prepared}' has no split 'validation'; it has ['test', 'train']"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        TfdsSource(prepared, "validation")


def test_format_without_random_access_is_refused(prepared, tmp_path):
    copy = tmp_path / "tiny_images" / "1.0.0"
    shutil.copytree(prepared, copy)
    info = json.loads((copy / "dataset_info.json").read_text())
    (copy / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    for shard in copy.glob("*.array_record*"):
        shard.rename(str(shard).replace("array_record", "tfrecord"))
    sentence = (
        f"TFDS dataset '{copy}' is stored in a format without random access; "
        "prepare it again with file_format='array_record'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        TfdsSource(copy, "train")


def test_missing_feature_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(TinyImages, "label_key", "species")
    directory = _prepare(tmp_path)
    sentence = f"TFDS dataset '{directory}' has the features ['image', 'species']; 'image' and 'label' are needed"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        TfdsSource(directory, "train")


def test_missing_package_is_named(prepared, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match="pip install tensorflow-datasets"):
        TfdsSource(prepared, "train")
