"""Backbones, methods and sources from outside the package: one file and one entry point each."""

# pyright: reportAttributeAccessIssue=false

from collections.abc import Iterator
import importlib
from pathlib import Path
import sys
import warnings

import compiled
from flax import nnx
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.attribution import METHODS
from castream_jax.backbones import registry as backbone_registry
from castream_jax.cli import main
from castream_jax.data import open_source
from castream_jax.data.named_sources import SOURCES, check_source
from castream_jax.experiment.config import base_config
from castream_jax.plugins import load_plugins

# What docs/extend.md shows.
SNIPPETS = (Path(__file__).parents[2] / "docs" / "extend.md").read_text().split("```python\n# ")[1:]
MODULES = {snippet.split(".py")[0]: "# " + snippet.split("```")[0] for snippet in SNIPPETS}

ENTRY_POINTS = {
    "castream_jax.backbones": "tinynet",
    "castream_jax.methods": "energy",
    "castream_jax.sources": "stripes",
}


def install(site: Path, name: str, entry_points: dict[str, str], modules: dict[str, str]) -> None:
    """What pip leaves of a distribution in a folder of `sys.path`."""
    info = site / f"{name}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "".join(f"[{group}]\n{module} = {module}\n" for group, module in entry_points.items())
    )
    for module, text in modules.items():
        (site / f"{module}.py").write_text(text)


@pytest.fixture
def site(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """A folder of `sys.path`; what is registered from there is forgotten afterwards."""
    known = [(registry, dict(registry)) for registry in (METHODS, SOURCES, backbone_registry._ARCHITECTURES)]
    monkeypatch.syspath_prepend(tmp_path / "site")
    load_plugins.cache_clear()
    yield tmp_path / "site"
    for registry, before in known:
        registry.clear()
        registry.update(before)
    for module in (*MODULES, "broken"):
        sys.modules.pop(module, None)
    load_plugins.cache_clear()
    importlib.invalidate_caches()


@pytest.mark.slow
def test_each_is_added_from_outside(site: Path):
    assert MODULES.keys() == set(ENTRY_POINTS.values())
    install(site, "elsewhere", ENTRY_POINTS, MODULES)
    backbone = castream.create_backbone("tinynet", rngs=nnx.Rngs(0))
    assert "tinynet" in castream.backbone_names()
    stream = castream.CrossAttentionStream(backbone.stage_dims, rngs=nnx.Rngs(1))
    model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling(), "ca": stream})

    data = base_config().data
    data.update(source="stripes", path="16")
    source = open_source(data, "test")
    pixels = np.stack([source[i]["pixels"] for i in range(4)]).astype(np.float32) / 255
    labels = np.array([source[i]["label"] for i in range(4)])
    maps = castream.attribute(model, pixels, labels, methods=("energy", "inverted-energy"))
    assert maps.keys() == {(h, m) for h in ("gap", "ca") for m in ("energy", "inverted-energy")}
    last = np.asarray(compiled.stages(backbone, pixels)[-1])
    energy = np.square(last).sum(-1)
    low, high = energy.min((1, 2), keepdims=True), energy.max((1, 2), keepdims=True)
    # Another order of the sums in float32.
    np.testing.assert_allclose(maps["gap", "energy"], (energy - low) / (high - low), atol=1e-5)


@pytest.mark.slow
def test_a_backbone_from_outside_is_exported(site: Path, tmp_path: Path):
    install(site, "elsewhere", ENTRY_POINTS, MODULES)
    backbone = castream.create_backbone("tinynet", rngs=nnx.Rngs(0))
    model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling()})
    castream.save_pretrained(model, tmp_path / "export")
    pixels = np.random.default_rng(0).random((1, 16, 16, 3), np.float32)
    loaded = castream.load_pretrained(tmp_path / "export")
    np.testing.assert_array_equal(compiled.logits(loaded, pixels)["gap"], compiled.logits(model, pixels)["gap"])


def test_a_source_from_outside_is_checked_by_the_command(site: Path, tmp_path: Path, monkeypatch, capsys):
    install(site, "elsewhere", ENTRY_POINTS, MODULES)
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", "stripes", "--path", "16", "--threads", "1"]) == 0
    output = capsys.readouterr().out
    assert "stripes train" in output
    assert "stripes test" in output


@pytest.mark.parametrize("text", ["import no_such_package", "raise RuntimeError('half\\na plugin')", "def f(:"])
def test_a_broken_plugin_is_named_and_breaks_nothing_else(site: Path, text: str):
    groups = dict.fromkeys(ENTRY_POINTS, "broken")
    install(site, "brokenware", groups, {"broken": text})
    install(site, "elsewhere", ENTRY_POINTS, MODULES)
    sentence = r"The plugin 'broken' \(castream_jax\.\w+\) of brokenware 1\.2 cannot be used \(\w+: .+\): update or"
    with pytest.warns(UserWarning, match=sentence) as told:
        assert "tinynet" in castream.backbone_names()
    assert len(told) == 1
    assert "\n" not in str(told[0].message)
    with pytest.warns(UserWarning, match=sentence):
        castream.attribution.methods.parse_method("energy")
    data = base_config().data
    data.update(source="stripes", path="16")
    with pytest.warns(UserWarning, match=sentence):
        open_source(data, "train")
    with pytest.raises(ValueError, match="There is no attribution method 'enerky': did you mean 'energy'"):
        castream.attribution.methods.parse_method("enerky")  # and no second warning, which would be an error here


def test_known_names_wait_for_no_plugin(site: Path):
    install(site, "brokenware", dict.fromkeys(ENTRY_POINTS, "broken"), {"broken": "1 / 0"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
        castream.attribution.methods.parse_method("gradcam")
        check_source("cifar10")
    assert "broken" not in sys.modules


def test_names_are_taken_once(site: Path):
    for register, name in (
        (castream.register_backbone("resnet50", num_classes=2), "a backbone 'resnet50'"),
        (castream.register_source("voc"), "a data source 'voc'"),
        (castream.register_method("gradcam"), "an attribution method 'gradcam'"),
    ):
        with pytest.raises(ValueError, match=f"There is already {name}: choose another name"):
            register(lambda *_: None)
