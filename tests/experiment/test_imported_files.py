"""Plain files that register methods, backbones and sources: by a config, by `--import`, from a workdir's own copy."""

from collections.abc import Iterator
import importlib.util
import json
from pathlib import Path
import shutil
import sys

import pytest

from castream_jax import plugins
from castream_jax.attribution import METHODS
from castream_jax.attribution.methods import parse_method
from castream_jax.backbones import registry
from castream_jax.cli import main
from castream_jax.data.named_sources import SOURCES
from castream_jax.experiment.claim import claim_workdir
from castream_jax.experiment.config import base_config, open_config, override

METHOD = """from castream_jax.attribution import register_method
import helper_of_ours

@register_method(helper_of_ours.NAME)
def ours(inputs):
    return {head: inputs.stages[-1].sum(-1) for head in inputs.model.heads}
"""
CONFIG = """from castream_jax.experiment.config import base_config

def get_config():
    config = base_config()
    config.imports = ("our_method.py",)
    return config
"""


def forget() -> None:
    """What a new process does not know."""
    METHODS.pop("ours", None)
    for name in ("our_method", "helper_of_ours"):
        sys.modules.pop(name, None)
    plugins._IMPORTED.clear()
    plugins._NEIGHBOURS.clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """A folder with a method, what it imports, and a config; all that they register is forgotten afterwards."""
    known = [(one, dict(one)) for one in (METHODS, SOURCES, registry._ARCHITECTURES)]
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "ours"
    folder.mkdir()
    (folder / "our_method.py").write_text(METHOD)
    (folder / "helper_of_ours.py").write_text("NAME = 'ours'\n")
    (folder / "config.py").write_text(CONFIG)
    forget()
    yield folder
    forget()
    for one, before in known:
        one.clear()
        one.update(before)


def only_sentence(capsys: pytest.CaptureFixture) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("castream:")]
    assert len(lines) == 1, lines
    return lines[0]


def test_a_config_imports_a_file_from_wherever_it_is_opened(folder: Path, monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    config = open_config("ours/config.py")
    assert config.imports == (str(folder / "our_method.py"),)
    assert parse_method("ours").method.function.__name__ == "ours"
    assert open_config(folder / "config.py").imports == config.imports  # and nothing is registered twice


def test_a_workdir_keeps_what_it_imports_and_can_be_moved(folder: Path, tmp_path: Path):
    workdir = claim_workdir(open_config(folder / "config.py"), tmp_path / "run").folder
    assert json.loads((workdir / "config.json").read_text())["imports"] == ["imports/our_method.py"]
    assert claim_workdir(open_config(folder / "config.py"), workdir).folder == workdir  # the copy is the same module
    shutil.move(workdir, tmp_path / "moved")
    shutil.rmtree(folder)
    forget()
    config = open_config(tmp_path / "moved" / "config.json")
    assert config.imports == (str(tmp_path / "moved" / "imports" / "our_method.py"),)
    parse_method("ours")


def test_a_file_that_was_changed_is_not_taken_for_the_workdirs(folder: Path, tmp_path: Path):
    workdir = claim_workdir(open_config(folder / "config.py"), tmp_path / "run").folder
    forget()
    (folder / "helper_of_ours.py").write_text("NAME = 'others'\n")
    config = open_config(folder / "config.py")
    with pytest.raises(ValueError, match=r"run/imports/helper_of_ours\.py and .*ours/helper_of_ours\.py, .* differ"):
        claim_workdir(config, workdir)


def test_files_are_imported_on_the_command_line(folder: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (folder / "our_net.py").write_text(
        "from castream_jax.backbones import register_backbone\n"
        "@register_backbone('ournet', num_classes=3)\ndef build(**options):\n    raise ValueError('built')\n"
    )
    assert main(["convert", "w.npz", "--import", "our_net.py", "--arch", "ournet", "--out", "o"]) == 2
    assert only_sentence(capsys) == "castream: built"
    assert (
        main(["train", "--config", "config.py", "--workdir", "w", "--import=our_net.py", "--config.data.path=no"]) == 2
    )
    assert "image folder 'no/train' does not exist" in only_sentence(capsys)
    assert not Path("w").exists()
    field = override(base_config(), ["--config.imports=our_net.py"]).imports
    assert field == (str(folder / "our_net.py"),)


def test_a_workdirs_copy_is_imported_from_the_folder_of_the_original(folder: Path, tmp_path: Path, monkeypatch):
    """As by `python -m castream_jax` there: the original is in `sys.path`, and what lies beside it has changed."""
    workdir = claim_workdir(open_config(folder / "config.py"), tmp_path / "run").folder
    forget()
    monkeypatch.chdir(folder)
    fresh = ["", *(entry for entry in sys.path if Path(entry).resolve().name != "ours")]
    monkeypatch.setattr(sys, "path", list(fresh))
    (folder / "helper_of_ours.py").write_text("NAME = 'others'\n")
    open_config(workdir / "config.json")
    parse_method("ours")
    for name in ("our_method", "helper_of_ours"):
        assert sys.modules[name].__file__ == str(workdir / "imports" / f"{name}.py")
    for name in ("our_method", "helper_of_ours"):  # as a worker process, which has this `sys.path`
        del sys.modules[name]
        assert importlib.util.find_spec(name).origin == str(workdir / "imports" / f"{name}.py")
    forget()
    monkeypatch.setattr(sys, "path", fresh)
    (folder / "our_method.py").write_text("other = 1\n")
    with pytest.raises(ValueError, match=r"imports/our_method\.py has the name of another module, .*ours/our_method"):
        open_config(workdir / "config.json")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def f(:\n", "broken.py: invalid syntax (line 1)."),
        ("\nimport no_such_package\n", "broken.py: No module named 'no_such_package' (line 2)."),
        ("x = 1\n1 / 0\n", "broken.py: ZeroDivisionError: division by zero (line 2)."),
        ("print(x)\n", "broken.py: name 'x' is not defined (line 1)."),
        ("import bad_helper\n", "bad_helper.py: invalid syntax (line 1)."),
        ("raise ValueError('There is no\\nform.')\n", "broken.py: There is no form (line 1)."),
        ("def get_config():\n    return base\n", "broken.py: name 'base' is not defined (line 2)."),
        (
            "from castream_jax.experiment.config import *\ndef get_config():\n    base_config().train.epoch = 3\n",
            "(line 3)",
        ),
    ],
)
def test_a_mistake_in_a_file_is_one_sentence_with_file_and_line(folder: Path, monkeypatch, capsys, text, sentence):
    monkeypatch.chdir(folder)
    (folder / "bad_helper.py").write_text("def f(:\n")
    (folder / "broken.py").write_text(text)
    assert main(["train", "--config", "broken.py", "--workdir", "w"]) == 2
    said = only_sentence(capsys)
    assert sentence in said
    assert "broken.py" in said or "bad_helper.py" in said
    if "get_config" not in text:
        assert main(["train", "--config", "config.py", "--import", "broken.py", "--workdir", "w"]) == 2
        assert sentence in only_sentence(capsys)
    assert not Path("w").exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("absent.py", "There is no Python file"),
        ("helper_of_ours.txt", "There is no Python file"),
        ("json.py", "has the name of another module"),
        ("numpy.py", "has the name of another module"),
    ],
)
def test_what_cannot_be_imported_is_refused(folder: Path, monkeypatch, capsys, name: str, sentence: str):
    monkeypatch.chdir(folder)
    if name != "absent.py":
        (folder / name).write_text("")
    assert main(["models", "--import", name]) == 2
    assert sentence in only_sentence(capsys)


def test_a_config_finds_its_neighbours(tmp_path: Path):
    """Modules and packages; of two folders each has its own, a changed one is read anew, and nothing stays behind."""
    for number in (1, 2):
        folder = tmp_path / str(number)
        (folder / "parts").mkdir(parents=True)
        (folder / "parts" / "__init__.py").write_text("")
        (folder / "parts" / "size.py").write_text(f"SIZE = {number}\n")
        (folder / "recipe.py").write_text(f"from parts.size import SIZE\nNAME = f'{number} {{SIZE}}'\n")
        (folder / "config.py").write_text("def get_config():\n    import recipe\n    return recipe.NAME\n")
    path, modules = list(sys.path), set(sys.modules)
    assert [open_config(tmp_path / name / "config.py") for name in "121"] == ["1 1", "2 2", "1 1"]
    (tmp_path / "1" / "parts" / "size.py").write_text("SIZE = 'another'\n")
    assert open_config(tmp_path / "1" / "config.py") == "1 another"
    assert (sys.path, set(sys.modules)) == (path, modules)


def test_damaged_configs_and_addresses_are_told_in_a_sentence(tmp_path: Path):
    for content in (b"{", b"[]", b"\xff\xfe", b'{"streams": {}, "evaluation": {"methods": []}, "bogus": 1}'):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"config\.json is damaged, or of another version: "):
            open_config(tmp_path / "config.json")
    with pytest.raises(ValueError, match="is an address, and configs are read from files"):
        open_config("https://a.org/config.py")
