"""A workdir belongs to one experiment, and stays readable by later versions."""

import ast
import json
from pathlib import Path
import re

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import castream_jax as castream
from castream_jax.experiment.claim import claim_workdir
from castream_jax.experiment.results import part_name, read_arrays, read_parts
from castream_jax.experiment.workdir import Workdir


def test_a_workdir_belongs_to_what_is_trained_in_it(tiny_config, tmp_path: Path):
    workdir = claim_workdir(tiny_config(), tmp_path / "run")
    assert claim_workdir(tiny_config(data={"path": "/elsewhere"}, evaluation={"batch_size": 8}), workdir) == workdir
    with pytest.raises(ValueError, match=r"holds another experiment; .*optimizer.momentum \(0.9 there, 0.5 here\)"):
        claim_workdir(tiny_config(optimizer={"momentum": 0.5}), workdir)


def test_a_field_that_is_younger_than_the_workdir_has_its_default(tiny_config, tmp_path: Path):
    workdir = claim_workdir(tiny_config(), tmp_path / "run")
    saved = workdir.read_config()
    del saved["backbone"]["dtype"]
    workdir.config.write_text(json.dumps(saved))
    assert claim_workdir(tiny_config(), workdir) == workdir
    with pytest.raises(ValueError, match=r"backbone.dtype \('float32' there, 'bfloat16' here\)"):
        claim_workdir(tiny_config(backbone={"dtype": "bfloat16"}), workdir)


def test_what_is_not_there_is_told(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workdir = Workdir.at("run")
    assert workdir.folder == tmp_path / "run"
    with pytest.raises(FileNotFoundError, match="run holds no experiment: run `castream train --config FILE --workdir"):
        workdir.open_config()
    with pytest.raises(FileNotFoundError, match="run holds no experiment"):
        workdir.read_summary()
    (tmp_path / "run").mkdir()
    workdir.config.write_text("{}")
    workdir.evaluation.mkdir()
    with pytest.raises(FileNotFoundError, match=r"run/evaluation is a part of the workdir .*run: give that folder"):
        Workdir.at("run/evaluation").read_summary()
    with pytest.raises(FileNotFoundError, match=r"summary\.json is missing; run `castream evaluate --workdir"):
        workdir.read_summary()
    assert workdir.read_run() == {}
    assert read_parts(workdir.rows, ("index",)) is None


def test_parts_are_one_table(tmp_path: Path):
    for number in (10, 2, 0):
        table = pa.table({"index": [number, number], "p": [0.5, 0.25]})
        pq.write_table(table, tmp_path / f"{part_name(number)}.parquet")
    (tmp_path / ".1.tmp.part-00011.parquet").write_text("half written by a killed process")
    assert read_parts(tmp_path, ("index", "absent")).to_pydict() == {"index": [0, 0, 2, 2, 10, 10]}
    assert read_parts(tmp_path, ("index", "p"), pc.field("p") > 0.3).to_pydict()["index"] == [0, 2, 10]


def test_no_other_module_spells_the_names():
    """As a path in the code; docstrings and messages may name a file."""
    package = Path(castream.__file__).parent
    texts = {
        path.relative_to(package).as_posix(): {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        for path in package.rglob("*.py")
    }
    paths = {text for text in texts.pop("experiment/workdir.py") if Path(text).suffix and " " not in text}
    names = {Path(path).name for path in paths} | {"checkpoints", "damaged-checkpoints"}
    assert {"config.json", "summary.json", "gallery.npz", "backbone.safetensors"} < names
    spelt = {file: text for file, found in texts.items() for text in found if text in paths or text in names}
    assert spelt == {"explanation/explanation.py": "index.html"}  # a page of its own


@pytest.mark.parametrize(
    ("file", "content", "read"),
    [
        ("config.json", "{", lambda workdir: workdir.read_config()),
        ("origins.json", "{", lambda workdir: workdir.read_origins()),
        ("classes.json", '["a"', lambda workdir: workdir.read_class_names()),
        ("evaluation/run.json", "[", lambda workdir: workdir.read_run()),
        ("evaluation/summary.json", '{"heads": ', lambda workdir: workdir.read_summary()),
        ("evaluation/summary.json", "{}", lambda workdir: workdir.read_summary()),
        ("evaluation/gallery.npz", "PK", lambda workdir: read_arrays(workdir.gallery)),
        ("evaluation/rows/part-00000.parquet", "PAR1", lambda workdir: read_parts(workdir.rows, ("index",))),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, write, file: str, content: str, read):
    write(tmp_path / "config.json", '{"backbone": {"num_classes": 2}}')
    write(tmp_path / file, content)
    with pytest.raises(ValueError, match=rf"{re.escape(file)} is damaged \(.+\): (remove it, and run|restore it)"):
        read(Workdir.at(tmp_path))


def test_class_names_are_as_many_as_classes(tmp_path: Path, write):
    write(tmp_path / "config.json", '{"backbone": {"num_classes": 2}}')
    write(tmp_path / "classes.json", '["a"]')
    with pytest.raises(ValueError, match=r"classes\.json must name the 2 classes of the backbone: restore it"):
        Workdir.at(tmp_path).read_class_names()
