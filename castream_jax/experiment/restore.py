"""The trained model of a workdir."""

import os

from flax import nnx
import jax
from jax.sharding import Mesh

from castream_jax.backbones import fingerprint
from castream_jax.experiment.build import model_to_restore
from castream_jax.experiment.checkpoint import Checkpoints
from castream_jax.experiment.claim import claim_workdir
from castream_jax.experiment.config import Config
from castream_jax.experiment.model_parts import model_parts
from castream_jax.experiment.origins import config_in_place
from castream_jax.experiment.selection import ChosenCheckpoint
from castream_jax.experiment.workdir import Workdir
from castream_jax.model import Model
from castream_jax.runtime.mesh import data_mesh, replicate, replicated
from castream_jax.runtime.progress import Progress


def restore_model(config: Config, workdir: str | os.PathLike[str], *, mesh: Mesh | None = None) -> Model:
    """The backbone with GAP and the streams of a checkpoint, on every device of `mesh`.

    The newest one that can be read, or, by `config.evaluation.checkpoint`, the best one.

    Args:
        config: of the training.
        workdir: its folder.
        mesh: devices of this process; by default all of them. It need not be the mesh of the training.

    Raises:
        FileNotFoundError: if `workdir` holds no checkpoint.
        ValueError: if it holds another experiment, a training of the backbone itself, or streams of another backbone.
    """
    return restore_checkpoint(config, workdir, mesh=mesh)[0]


def restore_checkpoint(
    config: Config, workdir: str | os.PathLike[str], *, mesh: Mesh | None = None
) -> tuple[Model, ChosenCheckpoint]:
    """As `restore_model`, with the checkpoint that was chosen."""
    mesh = data_mesh(jax.local_devices()) if mesh is None else mesh
    workdir = Workdir.at(workdir)
    workdir.check_experiment()
    if config.train.target != "streams":
        raise ValueError(
            f"{workdir} trains a backbone: it has no streams. Train them beside its export/backbone.safetensors first."
        )
    claim_workdir(config, workdir)
    model = model_to_restore(config_in_place(config, workdir))
    parts = model_parts(model, "streams")
    wanted = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh)),
        {"params": parts.params, "stats": parts.stats},
    )
    say = Progress("checkpoint", total=0, unit="steps").say
    with Checkpoints(workdir, fingerprint=frozen_fingerprint(config, model), read_only=True, say=say) as checkpoints:
        step, restored = checkpoints.restore(wanted, which=config.evaluation.checkpoint)
        chosen = ChosenCheckpoint(config.evaluation.checkpoint, step, *checkpoints.validation_of(step))
    nnx.update(model, restored["params"])
    nnx.update(model, replicate(parts.frozen, mesh))
    return model, chosen


def frozen_fingerprint(config: Config, model: Model) -> str:
    """What checkpoints are tied to: the fingerprint of the backbone, unless the backbone is what is trained."""
    return fingerprint(model.backbone) if config.train.target == "streams" else "trained here"
