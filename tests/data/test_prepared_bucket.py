"""Prepared data in a bucket are those on a disk, fetched once and compared with what was written."""

from pathlib import Path
import re

import numpy as np
import pytest

from castream_jax.data.content import content_digest
from castream_jax.data.digits import CanvasDigits
from castream_jax.data.from_config import splits_of
from castream_jax.data.prepare import Split, prepare
from castream_jax.data.prepared_images import JpegForm
from castream_jax.data.prepared_source import PreparedSource
from castream_jax.data.subset import Subset
from castream_jax.runtime.bucket import file_system


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch) -> Path:
    """Two splits in three shards each; the cache is empty."""
    monkeypatch.setenv("CASTREAM_CACHE", str(tmp_path / "cache"))
    digits = CanvasDigits("test", 1, canvas_size=32, seed=0)
    splits = {name: Split(Subset(digits, range(9)), JpegForm(16, 90)) for name in ("train", "test")}
    prepare(splits, tmp_path / "out", origin={}, images_per_shard=4)
    return tmp_path / "out"


def copy(folder: Path, address: str) -> None:
    for path in folder.iterdir():
        file_system(address).pipe_file(f"{address}/{path.name}", path.read_bytes())


def test_they_are_read_as_on_a_disk_and_fetched_once(bucket: str, prepared: Path, tmp_path: Path, monkeypatch, capfd):
    address = f"{bucket}/digits"
    copy(prepared, address)
    assert splits_of("prepared", address) == ("train", "test")
    here, there = PreparedSource(prepared, "train"), PreparedSource(f"{address}/", "train")
    assert content_digest(there, sizes=True) == content_digest(here, sizes=True)
    np.testing.assert_array_equal(there[8]["pixels"], here[8]["pixels"])
    assert f"fetching 0 MB of {address} to {tmp_path}/cache/prepared/" in capfd.readouterr().err
    fetched = {path.name for path in (tmp_path / "cache" / "prepared").glob("*/*.arrayrecord")}
    assert fetched == {f"train-0000{number}.arrayrecord" for number in range(3)}
    for name in ("train-00000.arrayrecord", "train.npz"):
        file_system(address).rm_file(f"{address}/{name}")
    assert len(PreparedSource(address, "train")) == 9
    assert capfd.readouterr().err == ""


def test_what_is_damaged_on_the_way_is_named_and_not_kept(bucket: str, prepared: Path, tmp_path: Path):
    address = f"{bucket}/digits"
    copy(prepared, address)
    shard = (prepared / "train-00001.arrayrecord").read_bytes()
    file_system(address).pipe_file(f"{address}/train-00001.arrayrecord", shard[:-1] + b"!")
    named = rf"'{address}/train-00001\.arrayrecord' is not what was written: copy it again"
    for _ in range(2):
        with pytest.raises(ValueError, match=named):
            PreparedSource(address, "train")
    file_system(address).rm_file(f"{address}/train-00001.arrayrecord")
    with pytest.raises(ValueError, match=named):
        PreparedSource(address, "train")
    file_system(address).pipe_file(f"{address}/train-00001.arrayrecord", shard)
    assert len(PreparedSource(address, "train")) == 9


def test_data_prepared_anew_at_the_same_address_are_fetched_anew(bucket: str, prepared: Path, tmp_path: Path):
    copy(prepared, f"{bucket}/digits")
    assert len(PreparedSource(f"{bucket}/digits", "train")) == 9
    digits = CanvasDigits("test", 1, canvas_size=32, seed=0)
    prepare({"train": Split(Subset(digits, range(5)), JpegForm(16, 90))}, tmp_path / "new", origin={})
    copy(tmp_path / "new", f"{bucket}/digits")
    assert len(PreparedSource(f"{bucket}/digits", "train")) == 5


def test_what_is_missing_is_told(bucket: str, prepared: Path):
    address = f"{bucket}/digits"
    with pytest.raises(FileNotFoundError, match=rf"no prepared data in '{address}', which would hold prepared\.json"):
        PreparedSource(address, "train")
    (prepared / "prepared.json").rename(prepared.parent / "prepared.json")
    copy(prepared, address)
    with pytest.raises(FileNotFoundError, match=rf"'{address}' is not finished: copy all of the prepared folder"):
        PreparedSource(address, "train")
    (prepared.parent / "prepared.json").rename(prepared / "prepared.json")
    copy(prepared, address)
    with pytest.raises(ValueError, match=re.escape(f"'{address}' has no split 'val'; it has 'train', 'test'")):
        PreparedSource(address, "val")
