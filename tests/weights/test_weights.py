"""Weight files: every format read, every broken one refused with one sentence."""

import os
from pathlib import Path
import pickle

import chex
from flax import nnx
import numpy as np
import pytest
import safetensors.numpy

import castream_jax as castream
from castream_jax.backbones import fingerprint, save_torch_weights, torch_state_dict
from castream_jax.weights.files import read_weights


@pytest.fixture
def backbone() -> castream.Backbone:
    return castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_saved_weights_load_to_the_same_trunk(backbone, tmp_path: Path, suffix: str):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".npz":
        np.savez(path, **torch_state_dict(backbone))
    else:
        save_torch_weights(backbone, path)
    assert fingerprint(castream.load_backbone("cifar_resnet8", path)) == fingerprint(backbone)


def test_fingerprint_sees_one_changed_bit(backbone):
    before = fingerprint(backbone)
    backbone.linear.bias[...] = np.nextafter(np.asarray(backbone.linear.bias[...]), 1)
    assert fingerprint(backbone) != before


def test_all_wrong_names_are_listed_and_nothing_is_changed(backbone):
    before = fingerprint(backbone)
    weights = torch_state_dict(castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(5)))
    weights["fc.weight"] = weights.pop("linear.weight")
    weights["conv1.weight"] = weights["conv1.weight"][:, :1]
    with pytest.raises(
        ValueError, match=r"missing: linear.weight; extra: fc.weight; misshaped: conv1.weight is \[16, 1"
    ):
        castream.load_torch_state_dict(backbone, weights)
    assert fingerprint(backbone) == before


def test_weights_of_another_architecture_are_refused(backbone, tmp_path: Path):
    save_torch_weights(backbone, tmp_path / "eight.safetensors")
    with pytest.raises(ValueError, match=r"not those of a 10-class cifar_resnet20\. missing: layer1\.1\.bn1\.bias"):
        castream.load_backbone("cifar_resnet20", tmp_path / "eight.safetensors")


@pytest.mark.extra
@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth", ".th"])
def test_truncated_files_are_named(backbone, tmp_path: Path, suffix: str, request: pytest.FixtureRequest):
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".npz":
        np.savez(whole, **torch_state_dict(backbone))
    elif suffix == ".safetensors":
        save_torch_weights(backbone, whole)
    elif suffix == ".th":
        whole.write_bytes((request.getfixturevalue("shared") / "weights" / "resnet20-12fca82f.th").read_bytes())
    else:
        torch = request.getfixturevalue("torch")
        torch.save({name: torch.tensor(value) for name, value in torch_state_dict(backbone).items()}, whole)
    content = whole.read_bytes()
    for share in (0.0, 0.05, 0.5, 0.99):
        part = tmp_path / f"part{suffix}"
        part.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ValueError, match=f"{part} is truncated, corrupted"):
            read_weights(part)


def test_published_file_reads_as_pytorch_reads_it(shared: Path, torch):
    path = shared / "weights" / "resnet32-d509ac18.th"
    expected = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    expected = {name.removeprefix("module."): value.numpy() for name, value in expected.items()}
    chex.assert_trees_all_equal(read_weights(path), expected)


@pytest.mark.parametrize("legacy", [False, True])
def test_views_and_dtypes_survive_a_torch_file(torch, tmp_path: Path, legacy: bool):
    base = torch.arange(24.0).reshape(4, 6)
    saved = {"view": base[1:, ::2].T, "half": base.half(), "long": torch.tensor(7), "empty": torch.zeros(0, 3)}
    saved["parameter"] = torch.nn.Parameter(base)
    torch.save(saved, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    chex.assert_trees_all_equal(
        read_weights(tmp_path / "w.pth"), {name: value.detach().numpy() for name, value in saved.items()}
    )


def test_a_pickle_that_runs_code_is_refused_and_runs_none(tmp_path: Path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    path = tmp_path / "evil.th"
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C) + pickle.dumps(Attack()))
    with pytest.raises(ValueError, match=r"it asks to run (posix|nt).mkdir"):
        read_weights(path)
    assert not (tmp_path / "attacked").exists()


def test_missing_and_unknown_files_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no weight file .*absent.pth"):
        read_weights(tmp_path / "absent.pth")
    (tmp_path / "weights.h5").touch()
    with pytest.raises(ValueError, match=r"weights are read from \.safetensors, \.npz, \.pth, \.pt and \.th"):
        read_weights(tmp_path / "weights.h5")


def test_a_new_classifier_keeps_the_trunk(backbone, tmp_path: Path):
    save_torch_weights(backbone, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"linear.bias is \[10\], should be \[7\].*new_classifier=True"):
        castream.load_backbone("cifar_resnet8", tmp_path / "w.safetensors", num_classes=7)
    loaded = castream.load_backbone("cifar_resnet8", tmp_path / "w.safetensors", num_classes=7, new_classifier=True)
    given, kept = torch_state_dict(backbone), torch_state_dict(loaded)
    classifier = {"linear.weight", "linear.bias"}
    chex.assert_trees_all_equal(*({n: v for n, v in w.items() if n not in classifier} for w in (given, kept)))
    assert kept["linear.weight"].shape == (7, 64)
    fresh = torch_state_dict(castream.create_backbone("cifar_resnet8", 7, rngs=nnx.Rngs(0)))
    chex.assert_trees_all_close(*({n: w[n] for n in classifier} for w in (kept, fresh)), rtol=1e-6)
    other = castream.load_backbone(
        "cifar_resnet8", tmp_path / "w.safetensors", num_classes=7, new_classifier=True, seed=1
    )
    assert not np.allclose(other.linear.kernel[...], loaded.linear.kernel[...])


def test_a_new_classifier_excuses_no_other_difference(backbone, tmp_path: Path):
    weights = torch_state_dict(backbone)
    weights["conv1.weight"] = weights["conv1.weight"][:, :1]
    np.savez(tmp_path / "w.npz", **weights)
    with pytest.raises(ValueError, match=r"misshaped: conv1.weight is \[16, 1, 3, 3\], should be \[16, 3, 3, 3\]\.$"):
        castream.load_backbone("cifar_resnet8", tmp_path / "w.npz", num_classes=7, new_classifier=True)
    with pytest.raises(ValueError, match=r"misshaped: .*conv1.weight[^.]*linear.bias[^.]*linear.weight[^.]*\.$"):
        castream.load_backbone("cifar_resnet8", tmp_path / "w.npz", num_classes=7)


def test_bundled_weights_say_whose_they_are():
    with pytest.raises(ValueError, match="those of cifar_resnet8, not of resnet18"):
        castream.load_backbone("resnet18", "digits")


def test_safetensors_are_in_torch_layout(backbone, tmp_path: Path):
    save_torch_weights(backbone, tmp_path / "w.safetensors")
    tensors = safetensors.numpy.load_file(tmp_path / "w.safetensors")
    assert tensors["conv1.weight"].shape == (16, 3, 3, 3)
    np.testing.assert_array_equal(tensors["linear.weight"].T, backbone.linear.kernel[...])
