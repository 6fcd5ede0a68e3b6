"""The share of the time that devices wait for images, and how many threads read them."""

from pathlib import Path
import time

from castream_jax.data.digits import CanvasDigits
from castream_jax.data.from_config import reading_options
from castream_jax.runtime import devices
from castream_jax.training import train


def test_slow_reading_is_told_once_with_what_may_help(tiny_config, tmp_path: Path, monkeypatch, capsys):
    read = CanvasDigits.__getitem__

    def slowly(source: CanvasDigits, index: int):
        time.sleep(0.002)
        return read(source, index)

    monkeypatch.setattr(CanvasDigits, "__getitem__", slowly)
    train(tiny_config(train={"log_every": 3}), tmp_path / "run")
    said = capsys.readouterr().err
    assert "images/s · waited " in said
    assert said.count("of the time for images: more threads (config.data.num_threads, now 1)") == 1


def test_threads_are_as_many_as_cores(tiny_config, monkeypatch):
    monkeypatch.setattr("castream_jax.data.from_config.available_cores", lambda: 12)
    for given, workers, expected in ((-1, 0, 12), (-1, 4, 3), (-1, 20, 1), (5, 4, 5), (0, 0, 0)):
        config = tiny_config(data={"num_threads": given, "num_workers": workers})
        assert reading_options(config.data)["num_threads"] == expected


def test_devices_in_words(monkeypatch, tmp_path: Path):
    assert devices.describe_devices() == f"4 × CPU ({devices.available_cores()} cores)"
    assert devices.unused_accelerator() == ""
    driver = tmp_path / "version"
    driver.touch()
    monkeypatch.setattr(devices, "_NVIDIA", driver)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert "pip install 'castream_jax[cuda13]'" in devices.unused_accelerator()
    assert list(devices.device_remarks())[1:] == [devices.unused_accelerator()]
