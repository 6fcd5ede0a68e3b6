"""One training and one evaluation at a time; a holder that dies leaves nothing behind."""

import json
import os
from pathlib import Path
import signal
import socket
import subprocess
import sys

import pytest

from castream_jax.cli import main
from castream_jax.experiment.lock import only_one
from castream_jax.experiment.workdir import Workdir

HOLD = """
import sys
from castream_jax.experiment.lock import only_one
from castream_jax.experiment.workdir import Workdir
with only_one(Workdir.at(sys.argv[1]), "training"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_one_is_told_who_holds_it_and_a_killed_holder_leaves_no_lock(tmp_path: Path, capsys, tiny_config):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        (tmp_path / "config.json").write_text(tiny_config().to_json())
        before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
        assert main(["train", "--workdir", str(tmp_path)]) == 2
        sentence = capsys.readouterr().err.splitlines()[-1]
        who = f"process {holder.pid} on host {socket.gethostname()} has held it for its training since 20"
        assert sentence.startswith(f"castream: {tmp_path} is in use: {who}")
        assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
        with only_one(Workdir.at(tmp_path), "evaluation"):  # reads what a training leaves
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
    with only_one(Workdir.at(tmp_path), "training"):
        assert json.loads((tmp_path / ".training.json").read_text())["process"] == os.getpid()
        with pytest.raises(ValueError, match="is in use"), only_one(Workdir.at(tmp_path), "training"):
            pass
    assert not (tmp_path / ".training.json").exists()


def test_where_there_are_no_locks_that_is_told_and_the_work_goes_on(tmp_path: Path, monkeypatch, capfd):
    def fail(*arguments, **options):
        raise OSError("Function not implemented")

    monkeypatch.setattr("filelock.FileLock.acquire", fail)
    with only_one(Workdir.at(tmp_path), "training"):
        pass
    assert "this file system has no locks (Function not implemented): nothing keeps" in capfd.readouterr().err
