# Records that are asked for a box have one:
# pyright: reportTypedDictNotRequiredAccess=false

from importlib import resources
from pathlib import Path
import re

import numpy as np
import pytest
from scipy.io import savemat

from castream_jax.data import ImageNet
from castream_jax.data.imagenet import imagenet_classes

TENCH, GOLDFISH, KIT_FOX, ENGLISH_SETTER = "n01440764", "n01443537", "n02119789", "n02100735"


def _label(wnid: str) -> int:
    return sorted(imagenet_classes()).index(wnid)


def _write_meta(path: Path) -> None:
    """`meta.mat` of the development kit: its numbering begins with the kit fox, and inner nodes come after."""
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "f8"),
             ("children", "O"), ("wordnet_height", "f8"), ("num_train_images", "f8")]  # fmt: skip
    rows = [
        (1, KIT_FOX, "kit fox, Vulpes macrotis", "small grey fox", 0, np.zeros((0, 0)), 0, 1300),
        (2, ENGLISH_SETTER, "English setter", "an English breed", 0, np.zeros((0, 0)), 0, 1300),
        (449, TENCH, "tench, Tinca tinca", "freshwater dace-like game fish", 0, np.zeros((0, 0)), 0, 1300),
        (1001, "n00001740", "entity", "that which is perceived", 2, np.array([1, 2]), 18, 0),
    ]
    savemat(path, {"synsets": np.array(rows, dtype=kinds)[:, None]})


@pytest.fixture
def flat(tmp_path: Path, save_jpeg, write) -> Path:
    """The validation folder as ILSVRC2012_img_val.tar unpacks, beside the development kit."""
    for number in (1, 2, 4):  # without the third
        save_jpeg(tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    data = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    write(data / "ILSVRC2012_validation_ground_truth.txt", "449\n1\n2\n2\n")
    _write_meta(data / "meta.mat")
    return tmp_path


def test_classes_are_the_thousand_of_tfds_and_torchvision():
    classes = imagenet_classes()
    labels = resources.files("tensorflow_datasets") / "datasets" / "imagenet2012" / "labels.txt"
    assert list(classes) == labels.read_text().split()
    assert list(classes) == sorted(classes)
    assert [classes[wnid] for wnid in (TENCH, GOLDFISH, KIT_FOX)] == ["tench", "goldfish", "kit fox"]
    assert list(classes.values())[207] == "golden retriever"
    assert len(set(classes.values())) == 1000


def test_a_tree_has_labels_by_wordnet_id_however_few_classes_are_there(tmp_path, save_jpeg):
    for wnid in (KIT_FOX, TENCH):
        save_jpeg(tmp_path / "train" / wnid / f"{wnid}_10026.JPEG")
    source = ImageNet(tmp_path, "train")
    assert len(source.class_names) == 1000
    assert [(source.name(i), source.class_names[source[i]["label"]]) for i in range(2)] == [
        (f"train/{TENCH}/{TENCH}_10026.JPEG", "tench"),
        (f"train/{KIT_FOX}/{KIT_FOX}_10026.JPEG", "kit fox"),
    ]
    assert "box" not in source[0]


def test_flat_validation_images_are_labelled_by_number_through_the_development_kit(flat):
    source = ImageNet(flat, "val")
    assert [source.class_names[source[i]["label"]] for i in range(3)] == ["tench", "kit fox", "English setter"]
    assert [int(source[i]["label"]) for i in range(3)] == [0, _label(KIT_FOX), _label(ENGLISH_SETTER)]
    assert source.name(2) == "val/ILSVRC2012_val_00000004.JPEG"


def test_the_files_of_the_kit_may_lie_in_the_root(flat):
    expected = [int(ImageNet(flat, "val")[i]["label"]) for i in range(3)]
    for file in (flat / "ILSVRC2012_devkit_t12" / "data").iterdir():
        file.rename(flat / file.name)
    assert [int(ImageNet(flat, "val")[i]["label"]) for i in range(3)] == expected


def test_boxes_of_the_images_class_are_read_where_annotations_are(flat, write, pascal_xml):
    folder = flat / "bounding_boxes" / "val"
    write(folder / "ILSVRC2012_val_00000001.xml", pascal_xml((TENCH, 0, 2, 3, 10, 12), (TENCH, 0, 1, 1, 5, 5)))
    write(folder / "ILSVRC2012_val_00000002.xml", pascal_xml((KIT_FOX, 0, 4, 4, 8, 8), (TENCH, 0, 0, 0, 1, 1)))
    boxes = [ImageNet(flat, "val")[i]["box"].tolist() for i in range(3)]
    assert boxes == [[[2, 3, 10, 12], [1, 1, 5, 5]], [[4, 4, 8, 8], [0, 0, 0, 0]], [[0, 0, 0, 0]] * 2]


def test_kaggles_layout(tmp_path, save_jpeg, write):
    data = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    save_jpeg(data / "train" / TENCH / f"{TENCH}_1.JPEG")
    for number in (1, 2):
        save_jpeg(data / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    write(
        tmp_path / "LOC_val_solution.csv",
        "ImageId,PredictionString\n"
        f"ILSVRC2012_val_00000002,{TENCH} 1 2 3 4 {TENCH} 5 6 7 8 \nILSVRC2012_val_00000001,{KIT_FOX} 9 8 20 19 \n",
    )
    for root in (tmp_path, tmp_path / "ILSVRC"):
        source = ImageNet(root, "val")
        assert [int(source[i]["label"]) for i in range(2)] == [_label(KIT_FOX), 0]
        assert [source[i]["box"].tolist() for i in range(2)] == [
            [[9, 8, 20, 19], [0, 0, 0, 0]],
            [[1, 2, 3, 4], [5, 6, 7, 8]],
        ]
        assert len(ImageNet(root, "train")) == 1


def test_mistakes_are_explained(flat, save_jpeg, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no ImageNet images in .*; give the folder that holds the split 'test'"
    ):
        ImageNet(flat, "test")
    save_jpeg(tmp_path / "train" / "cats" / "1.JPEG")
    with pytest.raises(ValueError, match=r"1 of 1 folders in .* are no ImageNet classes such as n01440764: cats; read"):
        ImageNet(flat, "train")
    devkit = flat / "ILSVRC2012_devkit_t12" / "data"
    (devkit / "ILSVRC2012_validation_ground_truth.txt").write_text("449\n7\n")
    with pytest.raises(ValueError, match=r"meta.mat' does not say what class 7 is"):
        ImageNet(flat, "val")
    (devkit / "ILSVRC2012_validation_ground_truth.txt").write_text("449\n1\n")
    with pytest.raises(ValueError, match="labels 2 images, and there is an image 4"):
        ImageNet(flat, "val")
    (devkit / "meta.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"meta.mat' is missing, which says what the numbers"):
        ImageNet(flat, "val")
    (devkit / "ILSVRC2012_validation_ground_truth.txt").unlink()
    with pytest.raises(FileNotFoundError, match=re.escape("lie flat, and") + ".*unpack the development kit there"):
        ImageNet(flat, "val")
    save_jpeg(flat / "val" / "cat.JPEG")
    with pytest.raises(
        ValueError, match=r"1 of 4 images in .* are not called ILSVRC2012_val_00000001.JPEG or so, such"
    ):
        ImageNet(flat, "val")
