"""A training whose images are cropped, mirrored and brightened on the device."""

from flax import nnx
import jax
import numpy as np
import pytest

from castream_jax.experiment.restore import restore_model
from castream_jax.runtime.mesh import data_mesh
from castream_jax.training import train


@pytest.mark.slow
def test_one_device_and_four_train_the_same(tiny_config, tmp_path):
    def trained(name: str, devices: int, on_device: bool = True) -> list[np.ndarray]:
        images = {"resize": "squash", "image_size": 32, "brightness": 0.3, "flip": True}
        config = tiny_config(data=images | {"augment_on_device": on_device}, train={"batch_size": 360})
        mesh = data_mesh(jax.devices()[:devices])
        stream = restore_model(config, train(config, tmp_path / name, mesh=mesh), mesh=mesh).heads["ca"]
        return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(stream))]

    one, four, host = trained("one", 1), trained("four", 4), trained("host", 1, on_device=False)
    for ours, theirs in zip(one, four, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert any(np.abs(ours - theirs).max() > 1e-3 for ours, theirs in zip(one, host, strict=True))
