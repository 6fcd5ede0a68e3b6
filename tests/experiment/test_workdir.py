"""A workdir belongs to one experiment, and stays readable by later versions."""

import json
from pathlib import Path

import pytest

from castream_jax.experiment.workdir import claim_workdir


def test_a_workdir_belongs_to_what_is_trained_in_it(tiny_config, tmp_path: Path):
    workdir = claim_workdir(tiny_config(), tmp_path / "run")
    assert claim_workdir(tiny_config(data={"path": "/elsewhere"}, evaluation={"batch_size": 8}), workdir) == workdir
    with pytest.raises(ValueError, match=r"holds another experiment; .*optimizer.momentum \(0.9 there, 0.5 here\)"):
        claim_workdir(tiny_config(optimizer={"momentum": 0.5}), workdir)


def test_a_field_that_is_younger_than_the_workdir_has_its_default(tiny_config, tmp_path: Path):
    workdir = claim_workdir(tiny_config(), tmp_path / "run")
    saved = json.loads((workdir / "config.json").read_text())
    del saved["backbone"]["dtype"]
    (workdir / "config.json").write_text(json.dumps(saved))
    assert claim_workdir(tiny_config(), workdir) == workdir
    with pytest.raises(ValueError, match=r"backbone.dtype \('float32' there, 'bfloat16' here\)"):
        claim_workdir(tiny_config(backbone={"dtype": "bfloat16"}), workdir)
