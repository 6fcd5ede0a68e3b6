"""Published weights from a server on this machine: fetched once, whole, checked, whatever breaks on the way."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import io
import os
from pathlib import Path
import pickle
import re
import subprocess
import sys
import threading
import time
import zipfile

import chex
from flax import nnx
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.backbones import fingerprint, torch_state_dict
from castream_jax.weights import download, entries
from castream_jax.weights.download import fetch_weights
from castream_jax.weights.entries import PUBLISHED_WEIGHTS, SHA256, published_sha256
from castream_jax.weights.files import read_weights

ROOT = Path(__file__).parents[2]


class Server(ThreadingHTTPServer):
    """Serves `files`, remembers the Range of every request and counts the bytes of the files that it sends."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/models"
        self.files: dict[str, bytes] = {}
        self.ranges: list[str | None] = []
        self.sent = 0
        self.break_after: int | None = None  # bytes of the next answer
        self.knows_ranges = True
        self.before_answer: Callable[[], object] = lambda: None


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        assert isinstance(server, Server)
        server.ranges.append(self.headers["Range"])
        server.before_answer()
        content = server.files.get(self.path.removeprefix("/models/"))
        if content is None:
            self.send_error(404)
            return
        start = 0
        if self.headers["Range"] and server.knows_ranges:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        part, server.break_after = content[start:][: server.break_after], None
        with contextlib.suppress(ConnectionError):  # the client has given up
            self.wfile.write(part)
            server.sent += len(part)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server:
        monkeypatch.setenv("CASTREAM_WEIGHTS_URL", server.url)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CASTREAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CASTREAM_WEIGHTS_URL", "http://127.0.0.1:9/models")  # nobody listens
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def backbone() -> castream.Backbone:
    return castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(3))


@pytest.fixture(scope="module")
def content(backbone: castream.Backbone) -> bytes:
    """A PyTorch file of `backbone`."""
    return torch_file(torch_state_dict(backbone))


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], str]:
    """Makes `imagenet1k_v1` of cifar_resnet8 the file of that content; returns its name."""

    def publish(content: bytes) -> str:
        file_name = f"cifar_resnet8-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        monkeypatch.setitem(PUBLISHED_WEIGHTS, "cifar_resnet8", {"imagenet1k_v1": file_name})
        return file_name

    return publish


def torch_file(tensors: Mapping[str, np.ndarray]) -> bytes:
    """A file that torch.load reads, of float32 tensors, assembled opcode by opcode: PyTorch need not be installed."""

    def text(value: str) -> bytes:
        return pickle.BINUNICODE + len(value.encode()).to_bytes(4, "little") + value.encode()

    def integers(values: tuple[int, ...]) -> bytes:
        items = b"".join(pickle.BININT + value.to_bytes(4, "little") for value in values)
        return pickle.MARK + items + pickle.TUPLE

    rows = b""
    for number, (name, value) in enumerate(tensors.items()):
        storage = text("storage") + b"ctorch\nFloatStorage\n" + text(str(number)) + text("cpu") + pickle.BININT
        storage = pickle.MARK + storage + value.size.to_bytes(4, "little") + pickle.TUPLE + pickle.BINPERSID
        strides = tuple(stride // value.itemsize for stride in np.ascontiguousarray(value).strides)
        arguments = storage + pickle.BININT1 + b"\0" + integers(value.shape) + integers(strides) + pickle.NEWFALSE
        arguments += b"ccollections\nOrderedDict\n" + pickle.EMPTY_TUPLE + pickle.REDUCE
        tensor = b"ctorch._utils\n_rebuild_tensor_v2\n" + pickle.MARK + arguments + pickle.TUPLE + pickle.REDUCE
        rows += text(name) + tensor
    listing = pickle.PROTO + b"\2" + pickle.EMPTY_DICT + pickle.MARK + rows + pickle.SETITEMS + pickle.STOP
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("weights/data.pkl", listing)
        archive.writestr("weights/version", "3")
        archive.writestr("weights/byteorder", "little")
        for number, value in enumerate(tensors.values()):
            archive.writestr(f"weights/data/{number}", np.ascontiguousarray(value, np.float32).tobytes())
    return buffer.getvalue()


def fetch() -> Path:
    return fetch_weights("cifar_resnet8", "imagenet1k_v1")


def left_in(cache: Path) -> set[str]:
    """Suffixes of the files in the cache, but for the lock."""
    return {path.suffix for path in cache.iterdir()} - {".lock"}


@pytest.mark.parametrize(
    ("name", "entry", "file_name"),
    [(name, *item) for name, files in PUBLISHED_WEIGHTS.items() for item in files.items()],
)
def test_file_names_carry_the_digits_to_check(name: str, entry: str, file_name: str):
    assert re.fullmatch(rf"{name}(_rwightman|_lukemelas)?-[0-9a-f]{{8}}\.pth", file_name)
    assert re.fullmatch(r"imagenet1k_v[12]", entry)


@pytest.mark.parametrize("sha256", SHA256)
def test_each_whole_digest_belongs_to_one_file(sha256: str):
    assert re.fullmatch("[0-9a-f]{64}", sha256)
    files = [file_name for entries in PUBLISHED_WEIGHTS.values() for file_name in entries.values()]
    (file_name,) = (file_name for file_name in files if sha256[:8] in file_name)
    assert published_sha256(file_name) == sha256


def test_published_weights_are_fetched_once(server, backbone, content, publish, cache):
    file_name = publish(content)
    server.files[file_name] = content
    assert fingerprint(castream.load_backbone("cifar_resnet8", weights="IMAGENET1K_V1")) == fingerprint(backbone)
    assert left_in(cache) == {".pth", ".safetensors"}
    server.files.clear()
    for path in (cache / file_name, (cache / file_name).with_suffix(".lock")):
        path.unlink(missing_ok=True)  # some releases of filelock take the second one away themselves
    assert fingerprint(castream.load_backbone("cifar_resnet8", weights="imagenet1k_v1")) == fingerprint(backbone)
    assert server.ranges == [None]
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]


def test_other_users_may_read_the_cache(server, content, publish):
    server.files[publish(content)] = content
    mask = os.umask(0o022)
    try:
        assert fetch().stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(mask)


@pytest.mark.parametrize(("breaks", "kept"), [(131_072, 131_072), (70_000, 65_536), (0, 0)])
def test_an_interrupted_transfer_goes_on(server, backbone, content, publish, cache, breaks: int, kept: int):
    file_name = publish(content)
    server.files[file_name] = content
    server.break_after = breaks
    with pytest.raises(ConnectionError, match=rf"it broke off after {kept:,} of {len(content):,} bytes"):
        fetch()
    assert (cache / f"{file_name}.part").stat().st_size == kept
    chex.assert_trees_all_equal(read_weights(fetch()), torch_state_dict(backbone))
    assert server.ranges == [None, f"bytes={kept}-" if kept else None]
    assert server.sent == len(content) + breaks - kept
    assert left_in(cache) == {".pth", ".safetensors"}


def test_a_server_without_ranges_starts_again(server, backbone, content, publish):
    server.files[publish(content)] = content
    server.knows_ranges = False
    server.break_after = 70_000
    with pytest.raises(ConnectionError, match="broke off"):
        fetch()
    chex.assert_trees_all_equal(read_weights(fetch()), torch_state_dict(backbone))
    assert server.sent == len(content) + 70_000


def test_a_transfer_killed_after_its_last_byte_is_complete(server, backbone, content, publish, cache):
    file_name = publish(content)
    server.files[file_name] = content
    cache.mkdir()
    (cache / f"{file_name}.part").write_bytes(content)
    chex.assert_trees_all_equal(read_weights(fetch()), torch_state_dict(backbone))
    assert server.sent == 0


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content[:-1] + b"?"])
def test_another_file_than_the_published_is_refused(server, content, publish, cache, damage):
    file_name = publish(content)
    server.files[file_name] = damage(content)
    expected, actual = (hashlib.sha256(data).hexdigest()[:8] for data in (content, damage(content)))
    with pytest.raises(
        ValueError, match=rf"begins with {actual}, should begin with {expected}; .*\.part was deleted\."
    ):
        fetch()
    assert left_in(cache) == set()
    server.files[file_name] = content
    assert fetch().is_file()


def test_a_file_with_the_names_digits_but_another_whole_digest_is_refused(server, content, publish, cache, monkeypatch):
    server.files[publish(content)] = content
    actual = hashlib.sha256(content).hexdigest()
    expected = actual[:8] + "0" * 56
    monkeypatch.setattr(entries, "SHA256", (expected,))
    with pytest.raises(ValueError, match=rf"begins with {actual}, should begin with {expected}; .*\.part was deleted"):
        fetch()
    assert left_in(cache) == set()
    monkeypatch.setattr(entries, "SHA256", (actual,))
    assert fetch().is_file()


def test_a_missing_file_is_named_by_its_url(server, content, publish):
    file_name = publish(content)
    with pytest.raises(ConnectionError, match=rf"^{server.url}/{file_name} could not be .* answers 404 Not Found\)"):
        fetch()


def test_without_a_network_a_file_placed_by_hand_is_used(backbone, content, publish, cache):
    file_name = publish(content)
    with pytest.raises(ConnectionError) as failed:
        fetch()
    assert str(failed.value) == (
        f"http://127.0.0.1:9/models/{file_name} could not be downloaded (no connection, ConnectionError): "
        f"try again, or put the file into {cache} by hand, as {file_name}."
    )
    (cache / file_name).write_bytes(content)
    (cache / f"{file_name}.part").write_bytes(content[:1000])  # of an earlier attempt
    chex.assert_trees_all_equal(read_weights(fetch()), torch_state_dict(backbone))
    assert left_in(cache) == {".pth", ".safetensors"}


def test_a_file_placed_by_hand_is_checked(content, publish, cache):
    file_name = publish(content)
    cache.mkdir()
    (cache / file_name).write_bytes(content[:1000])
    with pytest.raises(ValueError, match=rf"^{file_name} is damaged or another file: its SHA-256"):
        fetch()
    assert left_in(cache) == set()


def test_a_silent_server_is_given_up(server, content, publish, monkeypatch):
    server.files[publish(content)] = content
    monkeypatch.setattr(download, "_TIMEOUT", 0.2)
    given_up = threading.Event()
    server.before_answer = lambda: given_up.wait(30)
    try:
        with pytest.raises(ConnectionError, match=r"no answer within 0\.2 s"):
            fetch()
    finally:
        given_up.set()


def test_a_published_file_that_runs_code_runs_none(server, publish, cache, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("weights/data.pkl", pickle.dumps({"conv1.weight": Attack()}))
    server.files[publish(buffer.getvalue())] = buffer.getvalue()
    with pytest.raises(ValueError, match=r"it asks to run (posix|nt).mkdir"):
        fetch()
    assert not (tmp_path / "attacked").exists()
    assert left_in(cache) == {".pth"}


def test_published_files_without_weights_leave_no_result(server, content, publish, cache):
    truncated = content[:70_000]
    server.files[publish(truncated)] = truncated
    with pytest.raises(ValueError, match="is truncated, corrupted"):
        fetch()
    number = io.BytesIO()
    with zipfile.ZipFile(number, "w") as archive:
        archive.writestr("weights/data.pkl", pickle.dumps(7))
    server.files[publish(number.getvalue())] = number.getvalue()
    with pytest.raises(ValueError, match="holds no state_dict of tensors"):
        fetch()
    assert left_in(cache) == {".pth"}


def test_two_processes_at_once_share_one_transfer(server, backbone, content, publish, tmp_path):
    program = """
import pathlib, sys
from castream_jax.weights.download import fetch_weights
from castream_jax.weights.entries import PUBLISHED_WEIGHTS
PUBLISHED_WEIGHTS["cifar_resnet8"] = {"imagenet1k_v1": sys.argv[1]}
pathlib.Path(sys.argv[2]).touch()
path = fetch_weights("cifar_resnet8", "imagenet1k_v1")
print(path, path.stat().st_mtime_ns)
"""
    file_name = publish(content)
    server.files[file_name] = content
    ready = [tmp_path / "first", tmp_path / "second"]

    def until_both_have_asked():
        while not all(path.exists() for path in ready):
            time.sleep(0.01)
        time.sleep(0.5)

    server.before_answer = until_both_have_asked
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, file_name, path], env=environment, text=True, stdout=-1, stderr=-1
        )
        for path in ready
    ]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert {output.strip() for output, _ in outputs} == {f"{fetch()} {fetch().stat().st_mtime_ns}"}
    assert server.ranges == [None]
    assert sum("another process is fetching it" in error for _, error in outputs) == 1
    chex.assert_trees_all_equal(read_weights(fetch()), torch_state_dict(backbone))


def test_a_process_that_dies_gives_the_lock_back(server, content, publish, cache):
    file_name = publish(content)
    server.files[file_name] = content
    cache.mkdir()
    program = "import filelock, os, sys; filelock.FileLock(sys.argv[1]).acquire(); os.kill(os.getpid(), 9)"
    lock = (cache / file_name).with_suffix(".lock")
    assert subprocess.run([sys.executable, "-c", program, lock]).returncode == -9
    assert lock.exists()
    assert fetch().is_file()


def test_unknown_entries_are_told_beside_the_known():
    with pytest.raises(ValueError, match=r"'imagenet1k_v3' of resnet50 .* imagenet1k_v1 and imagenet1k_v2, or give"):
        castream.load_backbone("resnet50", weights="imagenet1k_v3")
    with pytest.raises(ValueError, match=r"'imagnet1k_V2' of resnet50 are published: did you mean imagenet1k_v2\?"):
        castream.load_backbone("resnet50", weights="imagnet1k_V2")
    with pytest.raises(ValueError, match="No weights of cifar_resnet20 are published"):
        castream.load_backbone("cifar_resnet20", weights="imagenet1k_v1")
