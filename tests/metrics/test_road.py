"""ROAD: what imputation gives where it is known, laws of the score, and pytorch-grad-cam's imputation."""

from types import ModuleType

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg

import castream_jax as castream
from castream_jax.metrics.road import impute


def test_a_plane_is_imputed_exactly():
    """Each neighbour has its opposite, of the same weight: within the image, means of neighbours keep planes."""
    y, x = np.mgrid[:12, :9].astype(np.float32)
    image = np.stack([0.1 * y - 0.05 * x, 0.3 + 0 * y, 0.02 * x], axis=-1)
    removed = np.zeros((12, 9), bool)
    removed[2:9, 1:7] = True
    removed[4, 4] = False
    given = np.where(removed[..., None], 9, image)  # what a removed pixel was has no influence
    np.testing.assert_allclose(impute(jnp.asarray(given), jnp.asarray(removed)), image, rtol=0, atol=1e-5)
    noisy = impute(jnp.asarray(given), jnp.asarray(removed), jnp.full(image.shape, 0.5))
    np.testing.assert_allclose(noisy - image, 0.5 * removed[..., None] * np.ones(3), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_score_of_the_inverted_map_is_the_negative(small_model):
    rng = np.random.default_rng(0)
    pixels, labels = rng.random((2, 16, 16, 3), np.float32), np.array([3, 7], np.int32)
    saliency = rng.permuted(np.tile(np.arange(256), (2, 1)), axis=1).reshape(2, 16, 16).astype(np.float32) / 256
    maps = {("gap", "map"): saliency, ("gap", "inverted"): 1 - saliency, ("ca", "map"): saliency}
    scores = castream.score(small_model, pixels, labels, maps, metrics=("ROAD",), chunk=7)
    of_map, of_inverted = scores["gap", "map"], scores["gap", "inverted"]
    assert set(of_map) == {"p", "ROAD", "road_most_curve", "road_least_curve"}
    assert np.abs(of_map["ROAD"]).min() > 1e-5
    np.testing.assert_allclose(of_inverted["ROAD"], -of_map["ROAD"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(of_inverted["road_most_curve"], of_map["road_least_curve"], rtol=0, atol=1e-6)
    alone = castream.score(small_model, pixels[1:], labels[1:], {("ca", "map"): saliency[1:]}, metrics=("AD", "ROAD"))
    np.testing.assert_allclose(alone["ca", "map"]["ROAD"], scores["ca", "map"]["ROAD"][1:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_imputation_is_that_of_pytorch_grad_cam(share: float, torch: ModuleType, torchvision: ModuleType):
    road = pytest.importorskip("pytorch_grad_cam.metrics.road", reason="pytorch-grad-cam is not installed")
    rng = np.random.default_rng(1)
    image, salience = rng.normal(size=(24, 20, 3)).astype(np.float32), rng.random((6, 5)).repeat(4, 0).repeat(4, 1)
    removed = salience < np.quantile(salience, share)
    # The system of its NoisyLinearImputer, whose call gives NumPy tensors in a way that NumPy 2 warns of.
    system, known = road.NoisyLinearImputer.setup_sparse_system(
        ~removed, image.transpose(2, 0, 1), road.neighbors_weights
    )
    expected = image.copy()
    expected[removed] = scipy.sparse.linalg.spsolve(scipy.sparse.csc_matrix(system), known)
    np.testing.assert_allclose(impute(jnp.asarray(image), jnp.asarray(removed)), expected, rtol=0, atol=2e-4)
