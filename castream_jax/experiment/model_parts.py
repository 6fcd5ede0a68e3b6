"""What a model consists of in a training: what is trained, what the forward pass updates, what never changes."""

from typing import Any, Literal, NamedTuple

from flax import nnx

from castream_jax.layers import BatchNorm
from castream_jax.model import Model

Tree = Any


class ModelParts(NamedTuple):
    """A model as data.

    Attributes:
        graphdef: its structure.
        params: arrays that are trained.
        stats: arrays that the forward pass updates; none where no BatchNorm is in training mode.
        frozen: arrays that never change.
    """

    graphdef: nnx.GraphDef
    params: Tree
    stats: Tree
    frozen: Tree

    @property
    def heads(self) -> list[str]:
        """Heads with trained parameters; GAP, which has none, when it is the backbone that is trained."""
        return sorted(self.params.get("heads", {})) or ["gap"]

    def merge(self, params: Tree, stats: Tree, frozen: Tree) -> Model:
        """The model with these arrays instead of its own."""
        return nnx.merge(self.graphdef, params, *(tree for tree in (stats, frozen) if tree))


def model_parts(
    model: Model, target: Literal["streams", "backbone"], batch_norm: Literal["train", "frozen"] = "train"
) -> ModelParts:
    """Pure dictionaries of the model's arrays by their part in training.

    `"streams"`: the heads are trained, and everything of the backbone, BatchNorm statistics too, is frozen.
    `"backbone"`: parameters are trained under GAP. BatchNorm is in training mode, its statistics taken over the whole
    batch; or it is `"frozen"`, and its statistics, scales and offsets stay what they are.

    Raises:
        ValueError: for another target, or another way with BatchNorm.
    """
    if target == "streams":
        graphdef, params, frozen = nnx.split(model, nnx.PathContains("heads"), ...)
        return ModelParts(graphdef, nnx.to_pure_dict(params), {}, nnx.to_pure_dict(frozen))
    if target != "backbone":
        raise ValueError(f"config.train.target must be 'streams' or 'backbone', got {target!r}.")
    if batch_norm == "train":
        model.backbone.train()
        graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
        return ModelParts(graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(stats), {})
    if batch_norm == "frozen":
        norms = {path for path, node in nnx.iter_graph(model) if isinstance(node, BatchNorm)}
        graphdef, frozen, params = nnx.split(model, lambda path, _: path[:-1] in norms, nnx.Param)
        return ModelParts(graphdef, nnx.to_pure_dict(params), {}, nnx.to_pure_dict(frozen))
    raise ValueError(f"config.train.batch_norm must be 'train' or 'frozen', got {batch_norm!r}.")
