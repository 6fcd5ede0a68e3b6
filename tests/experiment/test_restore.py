"""The trained model of a workdir comes to where it will run, and needs nothing of the training."""

import ast
from pathlib import Path

import chex
from flax import nnx
import jax

import castream_jax as castream
from castream_jax.experiment.restore import restore_model
from castream_jax.runtime.mesh import data_mesh


def test_every_array_is_on_the_devices_of_the_mesh(tiny_config, trained_once: Path):
    alone, shared = (
        nnx.state(restore_model(tiny_config(), trained_once, mesh=data_mesh(devices)))
        for devices in (jax.devices()[:1], jax.devices()[1:3])
    )
    assert {leaf.sharding.device_set == set(jax.devices()[1:3]) for leaf in jax.tree.leaves(shared)} == {True}
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(shared))
    chex.assert_trees_all_equal(alone, shared)


def test_an_experiment_knows_nothing_of_its_training():
    folder = Path(castream.__file__).parent / "experiment"
    imported = {
        node.module
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
    }
    assert "castream_jax.experiment.checkpoint" in imported
    assert not [name for name in imported if name.startswith(("castream_jax.training", "castream_jax.evaluation"))]
