"""What makes two evaluations the same run."""

from flax import nnx
import jax
import pytest

import castream_jax as castream
from castream_jax.data import open_source
from castream_jax.evaluation.identity import identify


@pytest.fixture
def identity_of(tiny_config, small_model):
    def identity_of(model: castream.Model = small_model, protocol: str = "castream", **sections: dict) -> dict:
        config = tiny_config(**sections)
        methods = config.evaluation.methods
        return identify(config, open_source(config.data, "test"), model, methods, castream.get_protocol(protocol))

    return identity_of


def changed(model: castream.Model, part: str) -> castream.Model:
    """The model with one number of the trunk or of the stream changed by the least amount."""
    graphdef, state = nnx.split(model)
    path, leaf = next((p, x) for p, x in jax.tree.leaves_with_path(state) if part in jax.tree_util.keystr(p))
    value = leaf.at[(0,) * leaf.ndim].add(1e-6)
    return nnx.merge(graphdef, jax.tree_util.tree_map_with_path(lambda p, x: value if p == path else x, state))


def test_all_that_decides_the_numbers_does(identity_of, small_model):
    identities = [
        identity_of(),
        identity_of(changed(small_model, "heads")),
        identity_of(changed(small_model, "backbone")),
        identity_of(protocol="rise"),
        identity_of(evaluation={"methods": ("attention",)}),
        identity_of(evaluation={"methods": ("attention", "gradcam")}),
        identity_of(evaluation={"max_images": 49}),
        identity_of(evaluation={"curves": False}),
        identity_of(data={"image_size": 48}),
        identity_of(data={"resize": "squash"}),
        identity_of(data={"seed": 1}),
    ]
    for number, identity in enumerate(identities):
        assert identity not in identities[:number]


def test_where_and_how_fast_it_runs_does_not(identity_of):
    data = {"path": "/elsewhere", "num_threads": 0, "flip": True, "canvases_per_digit": 3}
    evaluation = {"batch_size": 7, "memory_mib": 64, "images_per_part": 3, "gallery": 0}
    assert identity_of(data=data, evaluation=evaluation) == identity_of()
