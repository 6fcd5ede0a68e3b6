"""The trunk is frozen: what GAP says after training a stream beside it is what it said before, to the bit."""

from pathlib import Path

import numpy as np

from castream_jax.experiment import open_model
from castream_jax.training import train
from castream_jax.training.restore import restore_model


def test_gap_logits_are_the_same_bits_after_training_a_stream(tiny_config, tmp_path: Path):
    config = tiny_config()
    pixels = np.random.default_rng(0).random((8, 32, 32, 3), np.float32)
    before = open_model(config)(pixels)
    after = restore_model(config, train(config, tmp_path / "run"))(pixels)
    np.testing.assert_array_equal(after["gap"], before["gap"])
    assert not np.allclose(after["ca"], before["ca"])
