"""In a bucket: one training at a time, with the sentence of a disk, and a holder that dies does not hold for ever."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from castream_jax.cli import main
from castream_jax.experiment.lock import only_one
from castream_jax.experiment.workdir import Workdir
from castream_jax.runtime import bucket_lock
from castream_jax.runtime.bucket import file_system
from castream_jax.runtime.bucket_lock import BucketLock

HOLD = """
import sys
from castream_jax.experiment.lock import only_one
from castream_jax.experiment.workdir import Workdir
with only_one(Workdir.at(sys.argv[1]), "training"):
    print("held", flush=True)
    sys.stdin.read()
"""


def lock_of(bucket: str, said: list[str] | None = None) -> BucketLock:
    who = {"host": "here", "process": os.getpid(), "since": "now"}
    return BucketLock(f"{bucket}/run/.training.lock", who, [].append if said is None else said.append)


@pytest.fixture
def soon(monkeypatch):
    """Holders renew and die in seconds."""
    monkeypatch.setattr(bucket_lock, "RENEWED_EVERY", 0.2)
    monkeypatch.setattr(bucket_lock, "DEAD_AFTER", 3.0)
    monkeypatch.setattr(bucket_lock, "_SETTLED", 0.1)


@pytest.mark.system
def test_a_second_one_is_told_who_holds_it_and_a_killed_holder_leaves_no_lock(bucket: str, capsys, tiny_config):
    address = f"{bucket}/run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        files = file_system(address)
        files.pipe_file(f"{address}/config.json", tiny_config().to_json().encode())
        before = {name: files.cat_file(name) for name in files.find(address)}
        assert main(["train", "--workdir", address]) == 2
        sentence = capsys.readouterr().err.splitlines()[-1]
        who = f"process {holder.pid} on host {socket.gethostname()} has held it for its training since 20"
        assert sentence.startswith(f"castream: {address} is in use: {who}")
        assert "(if it has died, the same command takes over 1" in sentence
        assert sentence.endswith(" seconds from now). Wait until it has ended, or give another --workdir.")
        assert {name: files.cat_file(name) for name in files.find(address)} == before
        with only_one(Workdir.at(address), "evaluation"):  # reads what a training leaves
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
    assert json.loads(files.cat_file(f"{address}/.training.lock"))["process"] == holder.pid
    with only_one(Workdir.at(address), "training"):
        assert json.loads(files.cat_file(f"{address}/.training.lock"))["process"] == os.getpid()
        with pytest.raises(ValueError, match="is in use"), only_one(Workdir.at(address), "training"):
            pass
    assert files.find(address) == [f"{address.removeprefix('s3://')}/config.json"]


def test_a_holder_of_another_machine_counts_as_dead_when_it_no_longer_renews(bucket: str, soon, monkeypatch):
    address = f"{bucket}/run/.training.lock"
    there = {"host": "other", "process": os.getpid(), "since": "now", "machine": "another", "hold": "1"}
    file_system(address).pipe_file(address, json.dumps(there).encode())
    lock = lock_of(bucket)
    assert not lock.acquire()
    assert lock.holder == there
    assert 0 < lock.seconds <= 3
    time.sleep(lock.seconds + 1.1)  # the store's clock counts whole seconds
    assert lock.acquire()
    assert lock.is_locked
    assert json.loads(file_system(address).cat_file(address))["host"] == "here"
    lock.release()
    assert file_system(address).find(f"{bucket}/run") == []


def test_a_holder_that_renews_lives(bucket: str, soon, monkeypatch):
    held = lock_of(bucket)
    assert held.acquire()
    time.sleep(5)
    monkeypatch.setattr(bucket_lock, "_machine", lambda: "another")
    other = lock_of(bucket)
    assert not other.acquire()
    assert other.seconds > 0
    held.release()
    assert other.acquire()
    other.release()


def test_who_was_suspended_and_lost_the_lock_is_interrupted_and_leaves_the_other_ones(bucket: str, soon):
    said: list[str] = []
    lost = lock_of(bucket, said)
    assert lost.acquire()
    address = f"{bucket}/run/.training.lock"
    other = {"host": "other", "process": 7, "hold": "1"}
    files = file_system(address)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest may run behind a shell script's `&`

    def wait() -> None:
        files.pipe_file(address, json.dumps(other).encode())
        time.sleep(5)

    try:
        with pytest.raises(KeyboardInterrupt):
            wait()
    finally:
        signal.signal(signal.SIGINT, before)
    lost.release()
    assert said[-1].startswith(f"process 7 on host other has taken over {address}")
    assert json.loads(files.cat_file(address)) == other


@pytest.mark.system
def test_who_lost_the_lock_and_ignores_interrupts_ends(bucket: str):
    """As a command does that a shell script has put into the background."""
    script = f"""
import signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
from castream_jax.runtime import bucket_lock
bucket_lock.RENEWED_EVERY = 0.2
lock = bucket_lock.BucketLock({f"{bucket}/run/.lock"!r}, {{"host": "here", "process": 1}}, print)
assert lock.acquire()
bucket_lock.file_system(lock._address).pipe_file(lock._address, b'{{"host": "other", "process": 7}}')
time.sleep(20)
print("went on")
"""
    done = subprocess.run([sys.executable, "-u", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("process 7 on host other has taken over")
    assert "went on" not in done.stdout


def test_of_two_that_take_over_a_dead_lock_one_has_it(bucket: str, soon, monkeypatch):
    address = f"{bucket}/run/.training.lock"
    files = file_system(address)
    files.pipe_file(address, b'{"host": "other", "process": 1, "since": "then"}')
    first, second = lock_of(bucket), lock_of(bucket)
    for lock in (first, second):
        monkeypatch.setattr(lock, "_seconds_left", lambda: 0.0)
    monkeypatch.setattr(bucket_lock.time, "sleep", lambda seconds: files.pipe_file(address, second._text()))
    assert not first.acquire()
    assert first.holder == second._own
