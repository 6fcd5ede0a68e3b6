"""`castream explain`: files, folders, patterns, lists in; pictures, a table or JSON out; a sentence for a mistake."""

import io
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys

from flax import nnx
import numpy as np
from PIL import Image
import pytest
from sklearn.datasets import load_sample_image

import castream_jax as castream
from castream_jax.backbones import save_torch_weights
from castream_jax.cli import main
from castream_jax.data import UnreadableImageError
from castream_jax.data.image_paths import list_images
from castream_jax.data.imagenet import imagenet_classes
from castream_jax.experiment.claim import claim_workdir
from castream_jax.explanation.named_model import open_named_model

NAMES = tuple(f"class {letter}" for letter in "abcdefghij")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photographs of one name and an unreadable file, each in a folder of its own, and what is no image."""
    root = tmp_path_factory.mktemp("photos")
    for folder in ("a", "b", "c", ".hidden"):
        (root / folder).mkdir()
    Image.fromarray(load_sample_image("china.jpg")).save(root / "a" / "photo.png")
    Image.fromarray(load_sample_image("flower.jpg")).convert("L").save(root / "b" / "photo.jpg")
    (root / "c" / "broken.jpg").write_bytes((root / "b" / "photo.jpg").read_bytes()[:2000])
    shutil.copy(root / "a" / "photo.png", root / ".hidden" / "photo.png")
    (root / "a" / "notes.txt").write_text("no image")
    return root


@pytest.fixture(scope="module")
def export(small_model: castream.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "export"
    images = castream.ImageSpec(32, "squash", NAMES)
    castream.save_pretrained(castream.Model(small_model.backbone, dict(small_model.heads), images), path)
    return path


def explain_json(capsys: pytest.CaptureFixture, *arguments: object, status: int = 0) -> dict:
    assert main(["explain", *map(str, arguments), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_json_table_and_files_agree_with_the_library(photos, export, tmp_path, capsys):
    image = photos / "a" / "photo.png"
    document = explain_json(capsys, image, "--model", export, "--out", tmp_path / "out", "--methods", "gradcam++")
    assert list(document) == ["model", "backbone", "protocol", "out", "images", "unreadable"]
    assert document["backbone"] == "cifar_resnet8"
    assert document["unreadable"] == []
    (entry,) = document["images"]
    assert entry["image"] == str(image)
    explained = castream.explain(castream.load_pretrained(export), image, methods=["gradcam++"])
    for head in ("gap", "ca"):
        best, *others = entry["heads"][head]["predictions"]
        assert len(others) == 4
        assert entry["heads"][head]["explained"] == best
        assert best["name"] == NAMES[best["class"]]
        assert best["class"] == int(np.argmax(explained.probabilities[head]))
        np.testing.assert_allclose(best["probability"], explained.probabilities[head].max(), rtol=1e-4)
        with Image.open(entry["files"]["overlays"][head]["gradcam++"]) as drawn:
            difference = np.asarray(drawn, int) - np.asarray(explained.overlay(head, "gradcam++"), int)
        assert np.abs(difference).max() <= 1
    assert list(entry["files"]["attention"]["ca"]) == ["S0", "S1", "S2", "S3"]
    assert Path(entry["files"]["overview"]).parent == tmp_path / "out" / "photo"
    assert main(["explain", str(image), "--model", str(export), "--out", str(tmp_path / "out")]) == 0
    captured = capsys.readouterr()
    assert best["name"] in captured.out
    assert captured.out.splitlines()[-1] == str(tmp_path / "out")
    assert "explain" in captured.err


def test_a_broken_image_is_named_and_the_others_go_on(photos, export, tmp_path, capsys):
    assert main(["explain", str(photos), "--model", str(export), "--out", str(tmp_path), "--json"]) == 2
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert [entry["image"] for entry in document["images"]] == [
        str(photos / "a" / "photo.png"),
        str(photos / "b" / "photo.jpg"),
    ]
    # Two images of one name do not overwrite each other.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo", "photo-2"]
    broken = str(photos / "c" / "broken.jpg")
    assert len(document["unreadable"]) == 1
    assert document["unreadable"][0]["image"] == broken
    sentences = [line for line in captured.err.splitlines() if line.startswith("castream:")]
    assert len(sentences) == 1
    assert f"cannot read image '{broken}'" in sentences[0]
    with pytest.raises(UnreadableImageError):
        castream.explain(castream.load_pretrained(export), broken)


def test_lists_of_images(photos, monkeypatch):
    first, second = str(photos / "a" / "photo.png"), str(photos / "b" / "photo.jpg")
    broken = str(photos / "c" / "broken.jpg")
    assert list_images([str(photos)], None) == [first, second, broken]
    assert list_images([str(photos / "*" / "photo.*")], None) == [first, second]
    assert list_images([str(photos / "**" / "*.jpg")], None) == [second, broken]
    assert list_images(["-", first], io.StringIO(f"{second}\n\n{first}\n")) == [second, first]  # each once
    assert list_images(["absent.jpg"], None) == ["absent.jpg"]  # told of as unreadable
    (photos / "a" / "odd[1].png").symlink_to(first)
    assert list_images([str(photos / "a" / "odd[1].png")], None) == [str(photos / "a" / "odd[1].png")]
    (photos / "a" / "odd[1].png").unlink()
    for argument, sentence in (("*.none", "No file fits"), ("-", "is empty"), (str(photos / ".hidden/x*"), "No file")):
        with pytest.raises(ValueError, match=sentence):
            list_images([argument], io.StringIO("\n"))


def test_an_address_is_no_file(photos, export, tmp_path, capsys):
    address = "https://a.org/photo.jpg"
    document = explain_json(capsys, address, photos / "a", "--model", export, "--out", tmp_path, status=2)
    assert document["unreadable"] == [
        {"image": address, "error": f"cannot read image '{address}' (an address); download it, and give its path"}
    ]
    assert len(document["images"]) == 1


def test_a_list_on_stdin(photos, export, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{photos / 'b' / 'photo.jpg'}\n{tmp_path / 'absent.png'}\n"))
    document = explain_json(capsys, "-", "--model", export, "--out", tmp_path, "--head", "gap", status=2)
    assert [Path(entry["image"]).name for entry in document["images"]] == ["photo.jpg"]
    assert list(document["images"][0]["heads"]) == ["gap"]
    assert [Path(entry["image"]).name for entry in document["unreadable"]] == ["absent.png"]


def test_a_class_by_name(photos, export, tmp_path, capsys):
    arguments = (photos / "a", "--model", export, "--out", tmp_path, "--class", "class j")
    document = explain_json(capsys, *arguments)
    heads = document["images"][0]["heads"]
    assert [heads[head]["explained"]["class"] for head in ("gap", "ca")] == [9, 9]
    assert main(["explain", *map(str, arguments)]) == 0
    assert "Explained" in capsys.readouterr().out


def test_name_and_hash_of_a_protocol_belong_together(photos, export, tmp_path, capsys):
    for arguments, name in (
        ([], "castream-pred"),
        (["--class", "3"], "castream"),
        (["--protocol", "rise", "--class", "3"], "rise with target_class=label"),
    ):
        document = explain_json(capsys, photos / "a", "--model", export, "--out", tmp_path, *arguments)
        assert document["protocol"]["name"] == name
        known = castream.protocol.PROTOCOLS.get(name)
        assert known is None or document["protocol"]["hash"] == known.hash


def test_a_class_whose_name_is_a_number_is_found_by_its_name(photos, export, tmp_path, capsys):
    (tmp_path / "names.txt").write_bytes("\ufeff1\r\n10\r\n2\r\n3\r\n4\r\n5\r\n6\r\n7\r\n8\r\ncaf\xe9\r\n".encode())
    arguments = (photos / "a", "--model", export, "--out", tmp_path, "--class-names", tmp_path / "names.txt")
    with pytest.warns(UserWarning, match="'1' is taken for a name: the class called '1' has the number 0"):
        document = explain_json(capsys, *arguments, "--class", "1")
    assert document["images"][0]["heads"]["gap"]["explained"]["class"] == 0
    document = explain_json(capsys, *arguments, "--class", "CAFE\u0301")
    assert document["images"][0]["heads"]["gap"]["explained"]["name"] == "caf\xe9"
    (tmp_path / "names.txt").write_bytes("caf\xe9\n".encode("latin-1"))
    assert main(["explain", *map(str, arguments)]) == 2
    assert "names.txt is not UTF-8, so that its names cannot be read: save it in that" in capsys.readouterr().err


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_who_reads_the_results_may_stop_and_stdout_may_be_closed(photos, export, tmp_path, monkeypatch, capsys, form):
    command = ["explain", str(photos / "a"), "--model", str(export), "--out", str(tmp_path), *form]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as broken, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", broken)
        assert main(command) == 141
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        assert main(command) == 0
    assert "castream:" not in capsys.readouterr().err


def test_a_closed_stdin_is_an_empty_list(export, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["explain", "-", "--model", str(export)]) == 2
    assert "castream: The list of images on stdin is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--class", "class z"], "There is no class called 'class z': did you mean 'class"),
        (["--class", "10"], "There is no class 10: the model's classes are 0 … 9."),
        (["--head", "cls"], "There is no head 'cls': the model's heads are gap, ca."),
        (["--methods", "gradcamm"], "There is no attribution method 'gradcamm': did you mean 'gradcam'"),
        (["--class-names", "absent.txt"], "There is no file absent.txt with the names of the classes."),
        (["--weights", "x.pth"], "which holds its own weights"),
        (["--model", "absent/export"], "There is no folder absent/export: give an export, a workdir, or the name"),
        (["--model", "resnet51"], "Unknown backbone 'resnet51': did you mean resnet5"),
        (["--model", "cifar_resnet8"], "No weights of cifar_resnet8 are published: give a file with --weights."),
        (
            ["--model", "tests"],
            "tests is neither an export (it has no model.json) nor an imported trunk (no trunk.json) nor a workdir (no",
        ),
        (["--image-size", "3"], "cifar_resnet8 needs images of at least"),
        (["--image-size", "0"], "--image-size must be positive, got 0."),
        (["--image-size", "100000"], "--image-size must be at most 8192, got 100000."),
        (["--num-classes", "-1"], "--num-classes must be positive, got -1."),
        (["--batch-size", "0"], "The batch size must be positive, got 0."),
        (["--model", "https://a.org/m"], "https://a.org/m is an address, and models are read from folders: download"),
        (["--out", "README.md/here"], "README.md/here/photo cannot be reached: something on the way is a file"),
        (["--seed=3"], "explain takes no --seed=3: see castream explain --help."),
    ],
)
def test_mistakes_are_told_in_one_sentence(
    photos, export, tmp_path, capsys, monkeypatch, arguments: list[str], sentence: str
):
    monkeypatch.chdir(Path(__file__).parents[2])
    given = ["explain", str(photos / "a"), "--model", str(export), "--out", str(tmp_path / "out"), *arguments]
    assert main(given) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("castream:")]
    assert len(lines) == 1
    assert sentence in lines[0]
    assert not (tmp_path / "out").exists()


def test_a_workdir_has_its_heads_its_transform_and_its_names(tiny_config, trained_workdir, tmp_path, photos, capsys):
    workdir = trained_workdir
    (workdir / "config.json").write_text(tiny_config(evaluation={"protocol": "torchcam"}).to_json())
    document = explain_json(capsys, photos / "a", "--model", workdir, "--out", tmp_path / "out")
    assert document["protocol"]["name"] == "torchcam"
    (entry,) = document["images"]
    assert list(entry["heads"]) == ["gap", "ca"]
    assert {p["name"] for p in entry["heads"]["ca"]["predictions"]} < set("0123456789")
    model, _ = open_named_model(str(workdir))
    assert model.images == castream.ImageSpec(32, "none", tuple("0123456789"))
    explained = castream.explain(model, photos / "a" / "photo.png", protocol="torchcam")
    best = entry["heads"]["ca"]["predictions"][0]
    np.testing.assert_allclose(best["probability"], explained.probabilities["ca"].max(), rtol=1e-4)

    # Trained for several labels per image, a class's probability is the sigmoid of its own logit.
    config = tiny_config(train={"loss": "binary_cross_entropy"}, data={"exif_orientation": True})
    (workdir / "config.json").write_text(config.to_json())
    assert open_named_model(str(workdir))[0].images.exif_orientation
    document = explain_json(capsys, photos / "a", "--model", workdir, "--out", tmp_path / "out")
    assert document["protocol"]["name"] == "castream with target_class=predicted, probability=sigmoid"
    probability = document["images"][0]["heads"]["ca"]["predictions"][0]["probability"]
    logit = model(explained.pixels[None].astype(np.float32) / 255)["ca"].max()
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-logit)), rtol=1e-4)


def test_a_workdir_that_trained_a_backbone_and_a_backbone_with_a_file(
    tiny_config, tmp_path, photos, resnet8_weights, capsys
):
    config = tiny_config(train={"target": "backbone"}, backbone={"weights": ""})
    workdir = claim_workdir(config, tmp_path / "run")
    workdir.backbone.parent.mkdir()
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(7))
    save_torch_weights(backbone, workdir.backbone)
    of_workdir, of_file = (
        explain_json(capsys, photos / "a", "--out", tmp_path / "out", *arguments)["images"][0]["heads"]["gap"]
        for arguments in (
            ("--model", workdir),
            ("--model", "cifar_resnet8", "--weights", resnet8_weights),
        )
    )
    for one, other in zip(of_workdir["predictions"], of_file["predictions"], strict=True):
        assert one["class"] == other["class"]
        assert one["probability"] == pytest.approx(other["probability"], rel=1e-4)
        assert one["name"] == str(one["class"])
        assert other["name"] is None  # nobody knows what the classes of a file are


@pytest.mark.slow
def test_published_weights_in_the_folder_need_no_network(photos, tmp_path, capsys, monkeypatch):
    backbone = castream.create_backbone("resnet18", rngs=nnx.Rngs(0))
    save_torch_weights(backbone, tmp_path / "resnet18-f37072fd.safetensors")
    monkeypatch.setenv("CASTREAM_CACHE", str(tmp_path))
    monkeypatch.setenv("CASTREAM_WEIGHTS_URL", "http://127.0.0.1:9/")
    document = explain_json(
        capsys, photos / "a", "--model", "resnet18", "--image-size", "64", "--out", tmp_path / "out"
    )
    (head,) = document["images"][0]["heads"].values()
    names = list(imagenet_classes().values())
    for prediction in head["predictions"]:
        assert prediction["name"] == names[prediction["class"]]


@pytest.mark.system
def test_stdout_is_json_alone_and_a_second_start_compiles_nothing(photos, export, tmp_path):
    command = [sys.executable, "-m", "castream_jax", "explain", str(photos / "a"), "--model", str(export), "--json"]
    environment = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    environment |= {"CASTREAM_CACHE": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}
    outputs, programs = [], []
    for _ in range(2):
        done = subprocess.run(
            [*command, "--out", str(tmp_path / "out")], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        outputs.append(json.loads(done.stdout))
        programs.append({path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("jit*-cache")})
    assert outputs[0] == outputs[1]
    assert any(name.startswith("jit__explain-") for name in programs[0])
    assert programs[0] == programs[1]


def test_help_does_not_wait_for_jax():
    code = "import sys; from castream_jax.cli import main\ntry: main(['explain', '--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit(any(name in sys.modules for name in ('jax', 'flax', 'numpy', 'orbax', 'matplotlib')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert "--methods" in done.stdout


def test_odd_names_links_and_orientations_are_explained_or_told(photos, export, tmp_path, capsys):
    folder = tmp_path / "odd"
    folder.mkdir()
    with Image.open(photos / "a" / "photo.png") as photo:
        small = photo.resize((40, 30))
    exif = Image.Exif()
    exif[274] = 6
    small.save(folder / "new\nline.png")
    small.save(folder / "tagged.jpg", exif=exif)
    shutil.copy(folder / "new\nline.png", os.path.join(os.fsencode(folder), b"bad\xff.png"))
    (folder / "loop").symlink_to(".")
    (folder / "broken.png").symlink_to("nowhere.png")
    (folder / "raw.heic").touch()
    arguments = [str(folder), "--model", str(export), "--out", str(tmp_path / "out"), "--head", "gap"]
    assert main(["explain", *arguments, "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    captured.out.encode()
    names = [entry["image"] for entry in document["images"]]
    assert sorted(names) == sorted(str(folder / name) for name in ("bad\\xff.png", "new\\nline.png", "tagged.jpg"))
    for entry in document["images"]:
        assert json.loads(Path(entry["files"]["page"]).with_name("explanation.json").read_text())["image"] in names
    for told in ("odd/loop", "odd/broken.png", "odd/raw.heic", "an EXIF orientation that --exif-orientation applies"):
        assert told in captured.err
    assert main(["explain", *arguments, "--exif-orientation"]) == 0
    captured = capsys.readouterr()
    assert "EXIF" not in captured.err
    for name in ("bad\\xff.png", "new\\nline.png", "tagged.jpg"):
        assert name in captured.out


def test_images_of_one_name_stand_in_the_table_with_their_folders(photos, export, tmp_path, capsys):
    small = [tmp_path / folder / "0.png" for folder in ("a", "b")]
    for path in small:
        path.parent.mkdir()
        Image.new("RGB", (20, 20)).save(path)
    assert main(["explain", *map(str, small), "--model", str(export), "--out", str(tmp_path), "--head", "gap"]) == 0
    table = "".join(capsys.readouterr().out.split())
    assert "a/0.png" in table
    assert "b/0.png" in table


def test_the_limit_of_pixels_is_named_and_can_be_raised(photos, export, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    image, pixels = str(photos / "a" / "photo.png"), 427 * 640
    arguments = ["explain", image, "--model", str(export), "--out", str(tmp_path), "--head", "gap"]
    assert main(arguments) == 2
    sentence = f"(it has {pixels:,} pixels, and the limit is 40,000); --max-pixels={pixels} reads it"
    assert sentence in capsys.readouterr().err
    assert main([*arguments, "--max-pixels", str(pixels)]) == 0
    assert main([*arguments, "--max-pixels", "0"]) == 2
    assert "--max-pixels is 0: images of so many pixels are read anyway" in capsys.readouterr().err
