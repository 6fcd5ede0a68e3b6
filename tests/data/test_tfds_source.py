# Records that are asked for a box have one:
# pyright: reportTypedDictNotRequiredAccess=false

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
    names = ("cat", "dog")

    def label_feature(self):
        return tfds.features.ClassLabel(names=self.names)

    def label_of(self, index: int):
        return index % 2

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, None)),
            "bbox": tfds.features.BBoxFeature(),
            self.label_key: self.label_feature(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(), "test": self._generate_examples(grey=True)}

    def _generate_examples(self, grey: bool = False):
        for index in range(COUNT):
            image = Image.fromarray(_image(index))
            yield (
                index,
                {
                    "image": _encode(image.convert("L") if grey else image),
                    "bbox": tfds.features.BBox(ymin=0.2, xmin=0.25, ymax=1.0, xmax=0.75),
                    self.label_key: self.label_of(index),
                },
            )


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


def test_the_only_class_label_may_have_another_name(tmp_path, monkeypatch):
    monkeypatch.setattr(TinyImages, "label_key", "species")
    assert TfdsSource(_prepare(tmp_path), "train").class_names == ("cat", "dog")


def test_a_dataset_of_several_labels_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(TinyImages, "label_key", "labels")
    monkeypatch.setattr(
        TinyImages, "label_feature", lambda self: tfds.features.Sequence(tfds.features.ClassLabel(names=self.names))
    )
    monkeypatch.setattr(TinyImages, "label_of", lambda self, index: [index % 2])
    directory = _prepare(tmp_path)
    sentence = (
        f"TFDS dataset '{directory}' has the features ['bbox', 'image', 'labels'], of which 0 are a ClassLabel; "
        "one is needed, or one that is called 'label'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        TfdsSource(directory, "train")


def test_a_box_becomes_pixels(prepared):
    # The images are 7 pixels wide and 5 high.
    np.testing.assert_allclose(TfdsSource(prepared, "train")[2]["box"], [0.25 * 7, 0.2 * 5, 0.75 * 7, 5], rtol=1e-6)


def test_imagenets_wordnet_ids_are_translated(tmp_path, monkeypatch):
    monkeypatch.setattr(TinyImages, "names", ("n01440764", "n01443537"))
    assert TfdsSource(_prepare(tmp_path), "train").class_names == ("tench", "goldfish")


def test_missing_package_is_named(prepared, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match="pip install tensorflow-datasets"):
        TfdsSource(prepared, "train")
