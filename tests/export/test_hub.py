"""Exports on Hugging Face's hub, against a server on this machine."""

from pathlib import Path
import socket
import sys

import chex
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.cli import main
from castream_jax.exporting.hub import local_folder

PIXELS = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> None:
    """Downloads of one test, and of nobody's account."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="the extra castream_jax[hub] is not installed")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")


@pytest.fixture(scope="module")
def export(small_model: castream.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "export"
    images = castream.ImageSpec(32, class_names=tuple(f"class {k}" for k in range(10)))
    model = castream.Model(small_model.backbone, dict(small_model.heads.items()), images)
    castream.save_pretrained(model, folder)
    return folder


def closed_port() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.slow
def test_a_model_goes_up_and_comes_back(small_model, export: Path, hub, endpoint: str, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    url = castream.push_to_hub(export, "user/model", endpoint=endpoint)
    first = hub.branches["user/model"]["main"]
    assert url.endswith(first)
    on_disk = {str(p.relative_to(export)): p.read_bytes() for p in export.rglob("*") if p.is_file()}
    assert hub.commits["user/model"][first] == on_disk
    loaded = castream.load_pretrained("hf://user/model")
    chex.assert_trees_all_equal(loaded(PIXELS), small_model(PIXELS))
    assert castream.describe_pretrained("hf://user/model").images.class_names[3] == "class 3"
    # Another format in its place: what the first had and this has not goes; the first is still there by its revision.
    assert main(["export", str(export), "--to", "safetensors", "--out", str(tmp_path / "one")]) == 0
    castream.push_to_hub(tmp_path / "one", "user/model", endpoint=endpoint)
    newest = hub.commits["user/model"][hub.branches["user/model"]["main"]]
    assert sorted(newest) == ["README.md", "model.json", "model.safetensors"]
    assert (local_folder(f"hf://user/model@{first}") / "trunk.safetensors").is_file()
    chex.assert_trees_all_equal(castream.load_pretrained(f"hf://user/model@{first}")(PIXELS), small_model(PIXELS))
    out = tmp_path / "official"
    assert main(["export", "hf://user/model@main", "--to", "official", "--out", str(out)]) == 0
    assert (out / "ca.safetensors").is_file()
    # Without a network, what was downloaded once.
    monkeypatch.setenv("HF_ENDPOINT", closed_port())
    chex.assert_trees_all_equal(castream.load_pretrained("hf://user/model")(PIXELS), small_model(PIXELS))


@pytest.mark.parametrize(
    ("address", "error", "sentence"),
    [
        ("hf://user/absent", FileNotFoundError, "There is no repository user/absent on the hub, or it is private"),
        ("hf://user/there@v9", FileNotFoundError, "user/there on the hub has no revision 'v9'"),
        ("hf://user/there", FileNotFoundError, r"holds no model: there is no model\.json"),
        ("hf://us er/there", ValueError, "'us er/there' is no name of a repository"),
        ("hf://there", ValueError, "write hf://user/repository or"),
    ],
)
def test_what_is_not_there_is_named(hub, endpoint, monkeypatch, address: str, error: type[Exception], sentence: str):
    hub.create("user/there")
    hub.commit("user/there", "main", {"README.md": b"nothing yet"})
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(error, match=sentence):
        castream.load_pretrained(address)


def test_a_hub_that_is_down_is_told(export: Path, monkeypatch):
    endpoint = closed_port()
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    for call in (
        lambda: castream.load_pretrained("hf://user/model"),
        lambda: castream.push_to_hub(export, "user/model", endpoint=endpoint),
    ):
        with pytest.raises(ConnectionError, match="The hub could not be reached for user/model"):
            call()


def test_only_exports_go_up(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="holds no model"):
        castream.push_to_hub(tmp_path, "user/model")


def test_without_the_extra_one_is_told_how_to_get_it(monkeypatch, tmp_path: Path, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'castream_jax\[hub\]'"):
        castream.load_pretrained("hf://user/model")
    assert main(["export", "hf://user/model", "--to", "official", "--out", str(tmp_path / "out")]) == 2
    assert "castream: Hugging Face's hub needs the package huggingface_hub" in capsys.readouterr().err
