"""The trained model of a workdir."""

import os

from flax import nnx
import jax
from jax.sharding import Mesh

from castream_jax.backbones import fingerprint
from castream_jax.experiment.build import open_model
from castream_jax.experiment.checkpoint import Checkpoints
from castream_jax.experiment.claim import claim_workdir
from castream_jax.experiment.config import Config
from castream_jax.experiment.workdir import Workdir
from castream_jax.model import Model
from castream_jax.runtime.mesh import data_mesh, replicated
from castream_jax.runtime.progress import Progress
from castream_jax.training.optimizer import make_optimizer
from castream_jax.training.step import initial_state, split_model


def restore_model(config: Config, workdir: str | os.PathLike[str], *, mesh: Mesh | None = None) -> Model:
    """The backbone with GAP and the streams of a checkpoint, on every device of `mesh`.

    The newest one that can be read, or, by `config.evaluation.checkpoint`, the best one. The mesh need not be that of
    the training.

    Raises:
        FileNotFoundError: if `workdir` holds no checkpoint.
        ValueError: if it holds another experiment, a training of the trunk itself, or streams of another trunk.
    """
    mesh = data_mesh() if mesh is None else mesh
    workdir = Workdir.at(workdir)
    workdir.check_experiment()
    if config.train.target != "streams":
        raise ValueError(
            f"{workdir} trains a backbone: it has no streams. Train them beside its export/backbone.safetensors first."
        )
    claim_workdir(config, workdir)
    model = open_model(config)
    optimizer, _ = make_optimizer(config, steps_per_epoch=1, steps=1)
    split = split_model(model, "streams")
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh)),
        jax.eval_shape(lambda: initial_state(split, optimizer)),
    )
    say = Progress("checkpoint", total=0, unit="steps").say
    with Checkpoints(workdir, trunk=trunk_of(config, model), read_only=True, say=say) as checkpoints:
        _, state = checkpoints.restore(abstract, which=config.evaluation.checkpoint)
    nnx.update(model, state["params"])
    return model


def trunk_of(config: Config, model: Model) -> str:
    """What the checkpoints of a config are tied to: the fingerprint of the trunk, unless it is what is trained."""
    return fingerprint(model.backbone) if config.train.target == "streams" else "trained here"
