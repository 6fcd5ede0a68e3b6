"""Whatever writes on this machine refuses addresses, of which folders `s3:` and below would become."""

from pathlib import Path

from flax import nnx
import pytest

import castream_jax as castream
from castream_jax.backbones.load import save_torch_weights
from castream_jax.data import CanvasDigits
from castream_jax.data.prepare import Split, prepare
from castream_jax.data.prepared_images import JpegForm
from castream_jax.experiment.workdir import Workdir
from castream_jax.reproduce.make_targets import reproduce
from castream_jax.reproduce.needed_runs import Options
from castream_jax.runtime.local_path import local_path

DIGITS = Split(CanvasDigits("test", canvas_size=40), JpegForm(64, 90))


def _model(backbone: castream.Backbone) -> castream.Model:
    return castream.Model(backbone, {"gap": castream.GlobalAveragePooling()})


@pytest.mark.parametrize("address", ["s3://bucket/x", "gs://bucket/x", "https://host/x", Path("s3://bucket/x")])
@pytest.mark.parametrize(
    "write",
    [
        lambda backbone, where: castream.save_backbone(backbone, where),
        lambda backbone, where: castream.load_backbone(where),
        lambda backbone, where: castream.save_pretrained(_model(backbone), Path(where)),
        lambda backbone, where: save_torch_weights(backbone, f"{where}.safetensors"),
        lambda backbone, where: prepare({"train": DIGITS}, where, origin={}),
        lambda backbone, where: reproduce(["table1"], where, Options()),
    ],
)
@pytest.mark.usefixtures("unchecked_calls")
def test_an_address_where_a_path_is_needed(address: str | Path, write, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=f"^{str(address)[:3]}.* is an address, and a path on this machine is needed"):
        write(backbone, address)
    assert list(tmp_path.iterdir()) == []


def test_a_path_is_made_absolute_and_the_home_folder_is_found(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert local_path("~/runs") == local_path("runs") == tmp_path / "runs"


def test_a_workdir_on_the_network_that_is_no_bucket(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^https://host/run is an address, and a path on this machine is needed"):
        Workdir.at("https://host/run")
    assert list(tmp_path.iterdir()) == []
