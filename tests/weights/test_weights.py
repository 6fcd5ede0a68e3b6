"""Weight files: every format read, every broken one refused with one sentence."""

# pyright: reportAttributeAccessIssue=false

from collections.abc import Iterable
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
from castream_jax.weights.files import read_weights, write_safetensors


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


def save(tensors: dict[str, np.ndarray], path: Path, request: pytest.FixtureRequest) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **tensors)
    elif path.suffix == ".safetensors":
        write_safetensors(tensors, path)
    else:
        torch = request.getfixturevalue("torch")
        torch.save({name: torch.tensor(value) for name, value in tensors.items()}, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "backbone.", "module._orig_mod.model.backbone."])
def test_what_training_wraps_a_network_in_is_taken_off_in_every_format(backbone, tmp_path, request, suffix, prefix):
    tensors = {f"{prefix}{name}": value for name, value in torch_state_dict(backbone).items()}
    tensors |= {"n_averaged": np.array(3), f"{prefix}bn1.num_batches_tracked": np.array(3)}
    path = save(tensors, tmp_path / f"w{suffix}", request)
    assert fingerprint(castream.load_backbone("cifar_resnet8", path)) == fingerprint(backbone)
    assert "conv1.weight" in read_weights(path)


@pytest.mark.usefixtures("unchecked_calls")
def test_a_network_whose_own_names_begin_so_keeps_them(tmp_path: Path):
    class Wrapped(nnx.Module):
        name, num_classes = "wrapped", 10

        def __init__(self, seed: int):
            self.model = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(seed))

    saved, loaded = Wrapped(0), Wrapped(1)
    castream.load_torch_state_dict(loaded, {f"module.{n}": v for n, v in torch_state_dict(saved).items()})
    chex.assert_trees_all_equal(torch_state_dict(loaded), torch_state_dict(saved))


def refused(backbone: castream.Backbone, names: Iterable[str]) -> str:
    with pytest.raises(ValueError, match="These weights are not those of a 10-class cifar_resnet8") as error:
        castream.load_torch_state_dict(backbone, {name: np.zeros(1, np.float32) for name in names})
    return str(error.value)


def test_other_prefixes_are_named_and_long_lists_are_cut(backbone):
    names = list(torch_state_dict(backbone))
    message = refused(backbone, [f"encoder.net.{name}" for name in names])
    assert "missing: " in message
    assert f" and {len(names) - 5} more; extra: encoder.net." in message
    assert "They are there under 'encoder.net.': save these tensors alone, without that prefix." in message
    message = refused(backbone, [*(f"backbone.body.{name}" for name in names), "rpn.head.conv.weight"])
    assert "They are there under 'backbone.body.'" in message
    assert len(refused(backbone, [f"layer{i}.{name}" for name in names for i in range(100)])) < 1000


@pytest.mark.parametrize(
    ("names", "looks"),
    [
        (["cls_token", "blocks.0.attn.qkv.weight"], "timm's names for a vision transformer"),
        (["conv_proj.weight", "encoder.layers.encoder_layer_0.ln_1.weight"], "torchvision's names for a vision"),
        (["vit.encoder.layer.0.attention.attention.query.weight"], "Hugging Face's names for a vision transformer"),
        (["resnet.embedder.embedder.convolution.weight"], "Hugging Face's names for a ResNet"),
        (["resnet.encoder.stages.0.layers.0.shortcut.convolution.weight"], "Hugging Face's names for a ResNet"),
        (["stem.0.weight", "stages.0.blocks.0.conv_dw.weight"], "timm's names for a ConvNeXt"),
        (["conv_stem.weight", "blocks.0.0.conv_dw.weight"], "timm's names for an EfficientNet"),
        (["_conv_stem.weight"], "efficientnet_pytorch's names"),
        (["backbone.body.conv1.weight", "roi_heads.box_head.fc6.weight"], "a detection model"),
        (["features.0.weight", "classifier.0.weight"], "torchvision's names for a VGG"),
        (["layer4.2.conv3.weight", "fc.weight"], "torchvision's names for a ResNet with bottleneck blocks"),
        (["cls_token", "l1.to_out.1.weight"], "a CA-Stream, which has no backbone in it"),
        (["optimizer.state.0.exp_avg", "conv1.weight"], "a training checkpoint with the state of an optimizer"),
    ],
)
def test_it_is_guessed_what_a_file_is(backbone, names: list[str], looks: str):
    assert f"The file looks like {looks}" in refused(backbone, names)


def test_the_weights_of_a_checkpoint_are_taken_out_or_it_is_said_what_is_in_it(backbone, tmp_path: Path, torch):
    tensors = {name: torch.tensor(value) for name, value in torch_state_dict(backbone).items()}
    state = {"state": {0: {"exp_avg": tensors["conv1.weight"]}}, "param_groups": [{"lr": 0.1}]}
    path = tmp_path / "w.pth"
    for entry in ("state_dict", "model", "model_state_dict"):
        torch.save({entry: tensors, "optimizer": state, "epoch": 3}, path)
        assert fingerprint(castream.load_backbone("cifar_resnet8", path)) == fingerprint(backbone)
    torch.save({"model": tensors, "model_ema": tensors, "optimizer": state}, path)
    with pytest.raises(ValueError, match="several sets of weights, model, model_ema: save one of them"):
        read_weights(path)
    torch.save({"state_dict": tensors, "state_dict_ema": tensors}, path)
    with pytest.raises(ValueError, match="several sets of weights, state_dict, state_dict_ema: save one of them"):
        read_weights(path)
    torch.save({"optimizer": state, "epoch": 3}, path)
    with pytest.raises(
        ValueError, match=r"holds the entries optimizer, epoch\. It looks like a training checkpoint with"
    ):
        read_weights(path)


def test_weights_of_another_type_are_refused(backbone):
    weights = torch_state_dict(backbone)
    weights["conv1.weight"] = weights["conv1.weight"].astype(np.int8)
    with pytest.raises(ValueError, match=r"not floating point: conv1\.weight is int8"):
        castream.load_torch_state_dict(backbone, weights)


def test_variances_below_zero_are_refused(backbone):
    weights = torch_state_dict(backbone)
    weights["bn1.running_var"] = -weights["bn1.running_var"]
    with pytest.raises(ValueError, match=r"have negative variances: bn1\.running_var\. Get the file again"):
        castream.load_torch_state_dict(backbone, weights)


@pytest.mark.usefixtures("unchecked_calls")
def test_what_is_no_file_is_told_in_a_sentence(backbone, tmp_path):
    for weights, sentence in (
        ("https://download.pytorch.org/models/w.pth", "is an address, and weights are read from files: download it"),
        (None, r"a backbone that is given by its name needs weights, load_backbone\(name, weights\)"),
        (torch_state_dict(backbone), "got dict: load_torch_state_dict takes tensors"),
    ):
        with pytest.raises(ValueError, match=sentence):
            castream.load_backbone("cifar_resnet8", weights)
    with pytest.raises(ValueError, match=r"A state_dict is \{name: array\}, got list"):
        castream.load_torch_state_dict(backbone, [])


def test_bfloat16_of_pytorch_is_read(backbone, tmp_path: Path, torch):
    tensors = {name: torch.tensor(value).bfloat16() for name, value in torch_state_dict(backbone).items()}
    torch.save(tensors, tmp_path / "w.pth")
    read = read_weights(tmp_path / "w.pth")
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read[name].astype(np.float32), tensor.float().numpy())
    castream.load_backbone("cifar_resnet8", tmp_path / "w.pth")


def test_a_full_disk_is_what_the_system_says_it_is(backbone, tmp_path: Path, monkeypatch):
    def full(*_):
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(OSError, match="No space left on device") as error:
        save_torch_weights(backbone, tmp_path / "trunk.safetensors")
    assert (error.value.errno, error.value.filename) == (28, str(tmp_path / "trunk.safetensors"))
    assert list(tmp_path.iterdir()) == []
