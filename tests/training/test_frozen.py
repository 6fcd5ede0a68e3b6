"""The trunk is frozen: what GAP says after training a stream beside it is what it said before, to the bit."""

from pathlib import Path

import compiled
import jax
import numpy as np

from castream_jax.experiment.build import open_model
from castream_jax.experiment.restore import restore_model
from castream_jax.runtime.mesh import data_mesh


def test_gap_logits_are_the_same_bits_after_training_a_stream(tiny_config, trained_once: Path):
    config = tiny_config()
    pixels = np.random.default_rng(0).random((8, 32, 32, 3), np.float32)
    before = compiled.logits(open_model(config), pixels)
    trained = restore_model(config, trained_once, mesh=data_mesh(jax.devices()[:1]))
    after = compiled.logits(trained, pixels)
    np.testing.assert_array_equal(after["gap"], before["gap"])
    assert not np.allclose(after["ca"], before["ca"])
