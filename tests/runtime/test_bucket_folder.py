"""A folder in a bucket: what is asked for is fetched, what is written is there at once, a marker comes last."""

import contextlib
import os
from pathlib import Path
import subprocess
import sys

from etils import epath
import pytest

from castream_jax.runtime import bucket_folder
from castream_jax.runtime.atomic_files import write_atomically
from castream_jax.runtime.atomic_folder import writing_folder
from castream_jax.runtime.bucket import file_system
from castream_jax.runtime.bucket_folder import (
    as_given,
    fetch,
    is_copy,
    look_again,
    move,
    names_in,
    open_folder,
    remove,
    remove_unfinished,
    send,
)


def objects(address: str) -> dict[str, bytes]:
    files = file_system(address)
    root = files._strip_protocol(address) + "/"
    return {name.removeprefix(root): files.cat_file(name) for name in files.find(address)}


def put(address: str, text: str) -> None:
    file_system(address).pipe_file(address, text.encode())


@pytest.fixture
def elsewhere(monkeypatch):
    """From here on, this is another process, which has opened no folder."""
    return lambda: monkeypatch.setattr(bucket_folder, "_copies", {})


def test_a_folder_on_a_disk_is_the_path_that_it_was(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = open_folder("run")
    assert type(folder) is type(tmp_path)
    assert folder == tmp_path / "run"
    assert as_given(folder) is folder
    assert fetch(folder / "absent") == folder / "absent"
    assert not folder.exists()
    assert not is_copy(folder)


def test_what_is_written_is_in_the_bucket_at_once_and_read_elsewhere(bucket: str, elsewhere):
    folder = open_folder(f"{bucket}/a/run/")
    assert (folder.name, list(folder.iterdir())) == ("run", [])
    write_atomically(folder / "parts" / "1.json", "one")
    assert objects(f"{bucket}/a/run") == {"parts/1.json": b"one"}
    elsewhere()
    other = open_folder(epath.Path(f"{bucket}/a/run"))
    assert other != folder
    assert not (other / "parts").exists()
    assert names_in(other) == ["parts"]
    assert fetch(other / "parts" / "1.json").read_text() == "one"
    assert fetch(other / "absent") == other / "absent"


def test_in_a_sentence_a_path_is_its_address_and_for_libraries_a_path(bucket: str):
    path = open_folder(f"{bucket}/run") / "logs" / "x.json"
    assert f"{path}" == f"{bucket}/run/logs/x.json"
    assert f"{path.parent.resolve():>3}" == f"{bucket}/run/logs"
    assert os.fspath(path).startswith("/")
    assert isinstance(path, Path)
    assert as_given(path) == epath.Path(f"{bucket}/run/logs/x.json")
    again = open_folder(str(path.parent))  # by its path on this machine
    assert f"{again}" == f"{bucket}/run/logs"


def test_another_look_finds_what_others_have_changed_and_leaves_what_was_not_sent(bucket: str):
    folder = open_folder(f"{bucket}/run")
    put(f"{bucket}/run/here", "1")
    put(f"{bucket}/run/gone", "1")
    assert not fetch(folder / "here").exists()
    look_again()
    assert fetch(folder / "here").read_text() + fetch(folder / "gone").read_text() == "11"
    (folder / "unsent").write_text("mine")
    put(f"{bucket}/run/here", "22")
    file_system(bucket).rm_file(f"{bucket}/run/gone")
    assert fetch(folder / "here").read_text() == "1"  # nothing is asked twice
    look_again()
    assert fetch(folder / "here").read_text() == "22"
    assert not fetch(folder / "gone").exists()
    assert (folder / "unsent").exists()


def test_of_a_folder_with_a_marker_it_is_sent_last_and_without_it_nothing_is_fetched(
    bucket: str, monkeypatch, elsewhere
):
    folder = open_folder(f"{bucket}/run")
    for number in (1, 2):
        written = folder / f"tmp-{number}"
        (written / "d").mkdir(parents=True)
        for name in ("a", "d/b", "marker", "z"):
            (written / name).write_text(name)
    send(folder / "tmp-1", to=folder / "1", marker="marker")
    put_ = bucket_folder._put
    sent = []

    def put_until_the_marker(copy, path, name):
        sent.append(name)
        if name == "2/marker":
            raise KeyboardInterrupt
        put_(copy, path, name)

    monkeypatch.setattr(bucket_folder, "_put", put_until_the_marker)
    with pytest.raises(KeyboardInterrupt):
        send(folder / "tmp-2", to=folder / "2", marker="marker")
    assert (set(sent), sent[-1]) == ({"2/a", "2/d/b", "2/z", "2/marker"}, "2/marker")
    monkeypatch.setattr(bucket_folder, "_put", put_)
    elsewhere()
    other = open_folder(f"{bucket}/run")
    fetch(other, marker="marker")
    assert [path.name for path in other.iterdir()] == ["1"]
    assert (other / "1" / "d" / "b").read_text() == "d/b"
    remove_unfinished(other, "marker")
    assert set(objects(f"{bucket}/run")) == {"1/a", "1/d/b", "1/marker", "1/z"}


def test_the_marker_is_removed_first(bucket: str, monkeypatch):
    folder = open_folder(f"{bucket}/run")
    for name in ("a", "marker", "z"):
        write_atomically(folder / "1" / name, name)
    removed: list[list[str]] = []
    files = bucket_folder._copies[f"{bucket}/run"].files
    monkeypatch.setattr(files, "rm", lambda some: removed.append([name[-1] for name in some]))
    remove(folder / "1", marker="marker")
    assert removed == [["r"], ["a", "z"]]
    assert not (folder / "1").exists()


def test_files_and_folders_are_moved_and_removed(bucket: str):
    folder = open_folder(f"{bucket}/run")
    write_atomically(folder / "rows" / "1", "one")
    write_atomically(folder / "summary", "sum")
    (folder / "old").mkdir()
    move(folder / "rows", folder / "old" / "rows")
    move(folder / "summary", folder / "old" / "summary")
    assert objects(f"{bucket}/run") == {"old/rows/1": b"one", "old/summary": b"sum"}
    assert not (folder / "rows").exists()
    remove(folder / "old" / "summary")
    remove(folder / "absent")
    assert objects(f"{bucket}/run") == {"old/rows/1": b"one"}


def test_only_what_has_changed_is_sent_again(bucket: str, monkeypatch):
    folder = open_folder(f"{bucket}/run") / "logs"
    folder.mkdir()
    (folder / "a").write_text("1")
    (folder / "b").write_text("1")
    send(folder)
    files, sent = bucket_folder._copies[f"{bucket}/run"].files, []
    pipe = files.pipe_file
    monkeypatch.setattr(files, "pipe_file", lambda path, data: sent.append(path[-1]) or pipe(path, data))
    with (folder / "b").open("a") as file:
        file.write("2")
    send(folder)
    assert sent == ["b"]
    assert objects(f"{bucket}/run") == {"logs/a": b"1", "logs/b": b"12"}


def test_a_folder_written_as_a_whole_has_no_marker_meanwhile(bucket: str, monkeypatch):
    folder = open_folder(f"{bucket}/export")
    names = {"model.json", "a", "b"}
    with writing_folder(folder, may_replace=names, marker="model.json") as new:
        for name in ("model.json", "a"):
            (new / name).write_text("old")
    put_ = bucket_folder._put

    def killed(copy, path, name):
        assert "model.json" not in objects(f"{bucket}/export")
        raise KeyboardInterrupt

    monkeypatch.setattr(bucket_folder, "_put", killed)
    with contextlib.suppress(KeyboardInterrupt), writing_folder(folder, may_replace=names, marker="model.json") as new:
        (new / "model.json").write_text("new")
        (new / "b").write_text("new")
    assert objects(f"{bucket}/export") == {}
    monkeypatch.setattr(bucket_folder, "_put", put_)
    open_folder(f"{bucket}/export")
    with writing_folder(folder, may_replace=names, marker="model.json") as new:
        (new / "model.json").write_text("new")
        (new / "b").write_text("new")
    assert objects(f"{bucket}/export") == {"model.json": b"new", "b": b"new"}
    put(f"{bucket}/export/mine", "1")
    open_folder(f"{bucket}/export")
    foreign = pytest.raises(FileExistsError, match=rf"^{bucket}/export holds what this export would not write \(mine\)")
    with foreign, writing_folder(folder, may_replace=names, marker="model.json"):
        pass


def test_an_object_cannot_leave_the_folder(bucket: str, tmp_path: Path):
    folder = open_folder(f"{bucket}/run")
    bucket_folder._copies[f"{bucket}/run"].files.pipe_file(f"{bucket}/run/x/../../../outside", b"1")
    look_again()
    fetch(folder)
    assert names_in(folder) == []


ENDS = """
import os, sys
from castream_jax.runtime.bucket_folder import open_folder
folder = open_folder(sys.argv[1])
if os.fork() == 0:
    sys.exit()
os.wait()
assert folder.is_dir()
print(folder.parent)
"""


@pytest.mark.system
def test_the_scratch_copy_goes_with_its_process_and_not_with_a_fork(bucket: str):
    run = subprocess.run([sys.executable, "-c", ENDS, f"{bucket}/run"], capture_output=True, text=True, check=True)
    assert not Path(run.stdout.splitlines()[-1]).exists()


def test_what_goes_wrong_is_one_sentence(bucket: str, monkeypatch):
    with pytest.raises(
        FileNotFoundError, match=r"^There is no bucket absent-1, which s3://absent-1/run names: make it"
    ):
        open_folder("s3://absent-1/run")
    files = type(file_system(bucket))
    monkeypatch.setattr(files, "find", lambda *_, **__: (_ for _ in ()).throw(PermissionError("Forbidden.")))
    with pytest.raises(
        PermissionError, match=r"may not be read and written with these credentials \(Forbidden\): give"
    ):
        open_folder(f"{bucket}/run")
    monkeypatch.undo()


def test_without_credentials_package_or_network_it_says_what_to_do(bucket: str, monkeypatch):
    files = type(file_system(bucket))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    files.clear_instance_cache()
    with pytest.raises(
        PermissionError, match=r"There are no credentials for s3.*: give AWS_PROFILE, AWS_ACCESS_KEY_ID"
    ):
        open_folder(f"{bucket}/run")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(files, "retries", 1)
    files.clear_instance_cache()
    with pytest.raises(
        ConnectionError, match=r"run cannot be reached \(.*127.0.0.1:9.*\): check the network, or AWS_END"
    ):
        open_folder(f"{bucket}/run")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(
        ValueError, match=r"gs://b/run needs the package gcsfs: pip install 'castream_jax\[buckets\]'\."
    ):
        open_folder("gs://b/run")
