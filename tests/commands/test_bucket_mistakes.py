"""Commands that write to folders alone say so of an address in a bucket, and no folder `s3:` appears."""

from pathlib import Path
import sys

import pytest

from castream_jax.cli import main


@pytest.mark.parametrize(
    "command",
    [
        "data prepare digits --out s3://bucket/x",
        "explain photo.png --out gs://bucket/x",
        "explain photo.png --out https://host/x",
        "data check digits --sample s3://bucket/x",
        "convert weights.pth --arch cifar_resnet8 --out s3://bucket/x",
        "convert weights.pth --arch cifar_resnet8 --out hf://owner/x",
        "import tiny.py:net --out s3://bucket/x",
        "reproduce table1 --workdir s3://bucket/x",
    ],
)
def test_an_address_where_a_folder_is_wanted(command: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 2
    name, option, address = command.split()[0], *command.split()[-2:]
    assert capsys.readouterr().err == (
        f"castream: castream {name} writes to this machine, and {address} is an address: give {option} a path, "
        "and copy it there.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_it_is_named(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    for command in ("report --workdir gs://bucket/run", "evaluate --workdir gs://bucket/run"):
        assert main(command.split()) == 2
        sentence = "castream: gs://bucket/run needs the package gcsfs: pip install 'castream_jax[buckets]'.\n"
        assert capsys.readouterr().err == sentence
