"""`castream compile`: a small trunk for four chips that are not there."""

import importlib.util
import os
from pathlib import Path
import re
import subprocess
import sys

import pytest

from castream_jax.ahead_of_time import chips
from castream_jax.ahead_of_time.compiled import _too_large
from castream_jax.cli import main

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "digits" / "quickstart.py"
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="the compiler for TPUs (libtpu) is not installed"
)


def compiled(*options: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: what libtpu is told of the machine stays there."""
    command = [sys.executable, "-m", "castream_jax", "compile", str(CONFIG), *options]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})


@needs_libtpu
@pytest.mark.slow
@pytest.mark.system
def test_a_training_step_for_four_chips_is_one_all_reduce_and_fits():
    done = compiled("--topology", "v5e:2x2")
    assert done.returncode == 0, done.stderr
    rows = dict(re.findall(r"^│ (.+?) +│ (.+?) +│$", done.stdout, re.MULTILINE))
    assert rows["images at once"] == "64 on 4 chips"
    assert rows["between chips"] == "all-reduce f32[7106]"  # the stream's gradients, its loss and its hits
    share = re.fullmatch(r"[\d.]+ MiB, ([\d.]+)% of a v5e's", rows["memory per chip"])
    assert share is not None
    assert 0 < float(share[1]) < 1
    assert rows["instructions on 64-bit numbers"] == "0"


@needs_libtpu
@pytest.mark.system
def test_a_topology_that_there_is_not_is_named():
    done = compiled("--topology", "v9:2x2")
    assert done.returncode == 2
    assert "castream: libtpu knows no topology 'v9:2x2'" in done.stderr


def test_what_does_not_fit_is_named():
    """In the words of libtpu 0.0.42, whose program of this size takes a minute to be refused."""
    said = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (30.42G) exceeds "
        "available HBM (15.75G)."
    )
    text = "%0 = stablehlo.add %1, %2 : tensor<40000x64x64x16xf32> loc(1) %1 : tensor<8xui8>"
    assert _too_large("train", chips.Chip("v5e", 2**34), said, text) == (
        "The program 'train' needs 30.42G of 15.75G on each v5e; its largest arrays are 40000x64x64x16xf32, 8xui8: set "
        "config.train.accumulate, or take more chips."
    )


def test_without_the_compiler_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(chips.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=re.escape("pip install 'castream_jax[tpu]'")):
        chips.compile_only_devices("v5e:2x2")


def test_a_config_that_cannot_be_loaded_is_named(capsys):
    assert main(["compile", "nowhere.py", "--topology", "v5e:2x2"]) == 2
    assert "There is no config nowhere.py" in capsys.readouterr().err
