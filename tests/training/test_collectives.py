"""The training step lowered for 256 devices, which takes none of them."""

import json
from pathlib import Path
import subprocess
import sys

import pytest

SCRIPT = """
import json, re
import jax
jax.config.update("jax_num_cpu_devices", 256)
from flax import nnx
import jax.numpy as jnp
import castream_jax as castream
from castream_jax.runtime.mesh import data_mesh, replicated, split_over_images
from castream_jax.experiment.model_parts import model_parts
from castream_jax.training.optimizer import sgd
from castream_jax.training.step import initial_state, make_train_step

mesh = data_mesh()
backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
streams = {
    "s0": castream.CrossAttentionStream(backbone.stage_dims, rngs=nnx.Rngs(1)),
    "proj_ca": castream.CrossAttentionStream(backbone.stage_dims, start_stage=1, block="proj_ca", rngs=nnx.Rngs(2)),
}
parts = model_parts(castream.Model(backbone, streams), "streams")
optimizer = sgd(lambda step: 0.1, momentum=0.9, weight_decay=1e-4)
whole, over_images = replicated(mesh), split_over_images(mesh)
step = jax.jit(
    make_train_step(parts, optimizer, mesh=mesh),
    in_shardings=(whole, whole, over_images),
    out_shardings=whole,
    donate_argnums=0,
)
batch = {
    "pixels": jax.ShapeDtypeStruct((512, 16, 16, 3), jnp.uint8),
    "label": jax.ShapeDtypeStruct((512,), jnp.int32),
}
state = jax.eval_shape(lambda: initial_state(parts, optimizer))
hlo = step.lower(state, parts.frozen, batch).compile().as_text()
kinds = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|collective-broadcast"
print(json.dumps({
    "devices": mesh.size,
    "collectives": re.findall(rf"= (\\S+) ({kinds})(?:-start)?\\(", hlo),
    "parameters": sum(leaf.size for leaf in jax.tree.leaves(parts.params)),
}))
"""


@pytest.mark.slow
def test_on_256_devices_the_step_is_one_all_reduce_of_the_streams_gradients():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    result = json.loads(done.stdout)
    assert result["devices"] == 256
    # Every parameter's gradient once, in float32; beside them the sums of loss and hits of two streams.
    assert result["collectives"] == [[f"f32[{result['parameters'] + 4}]{{0}}", "all-reduce"]]
