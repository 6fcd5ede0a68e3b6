"""One training step: a trunk pass, then loss and update of every stream (or, to pretrain it, of the trunk itself)."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8
import optax

from castream_jax.metrics.recognition import correct
from castream_jax.model import Model

Tree = Any
State = dict[str, Tree]
Batch = Mapping[str, Array]


class Split(NamedTuple):
    """A model as data: what is trained, what the forward pass updates, what never changes."""

    graphdef: nnx.GraphDef
    params: Tree
    stats: Tree
    frozen: Tree


def split_model(model: Model, target: Literal["streams", "backbone"]) -> Split:
    """Pure dictionaries of the model's arrays by their part in training.

    `"streams"`: the heads are trained, and everything of the trunk, BatchNorm statistics too, is frozen.
    `"backbone"`: parameters are trained under GAP, BatchNorm in training mode.

    Raises:
        ValueError: for another target.
    """
    if target == "streams":
        graphdef, params, frozen = nnx.split(model, nnx.PathContains("heads"), ...)
        return Split(graphdef, nnx.to_pure_dict(params), {}, nnx.to_pure_dict(frozen))
    if target == "backbone":
        model.backbone.train()
        graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
        return Split(graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(stats), {})
    raise ValueError(f"config.train.target must be 'streams' or 'backbone', got {target!r}.")


def initial_state(split: Split, optimizer: optax.GradientTransformation) -> State:
    """Everything that changes during training, as one tree: what a checkpoint holds."""
    zeros = {name: {"loss": jnp.zeros(()), "correct": jnp.zeros((), jnp.int32)} for name in _trained_heads(split)}
    # A copy: the step donates its state, and the model that was split must outlive it.
    params, stats = jax.tree.map(jnp.copy, (split.params, split.stats))
    return {
        "step": jnp.zeros((), jnp.int32),
        "params": params,
        "stats": stats,
        "optimizer": optimizer.init(params),
        "totals": {"images": jnp.zeros((), jnp.int32), "heads": zeros},
    }


def make_train_step(split: Split, optimizer: optax.GradientTransformation) -> Callable[[State, Tree, Batch], State]:
    """The step to be jitted: `(state, frozen, batch) -> state`.

    `batch` is `{"pixels": uint8 [B, H, W, 3], "label": int32 [B]}`. The loss is the sum over heads of their mean cross
    entropies; heads share no parameter, so each is trained as if it were alone. Only `params` are differentiated: of
    a frozen trunk there is no backward pass to build. `totals` accumulate loss, hits and images until they are read.
    """
    names = _trained_heads(split)

    def train_step(state: State, frozen: Tree, batch: Batch) -> State:
        pixels = to_unit_range(batch["pixels"])
        labels = batch["label"]

        def total_loss(params: Tree) -> tuple[Array, tuple[Tree, Tree]]:
            model = nnx.merge(split.graphdef, params, *(tree for tree in (state["stats"], frozen) if tree))
            all_logits = model.logits(model.backbone.stages(pixels), query=labels)
            losses = {name: cross_entropy(all_logits[name], labels) for name in names}
            hits = {name: correct(all_logits[name], labels).sum() for name in names}
            stats = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)) if state["stats"] else {}
            return sum(losses.values(), start=jnp.zeros(())), (stats, {"loss": losses, "correct": hits})

        gradient, (stats, result) = jax.grad(total_loss, has_aux=True)(state["params"])
        updates, optimizer_state = optimizer.update(gradient, state["optimizer"], state["params"])
        count, totals = labels.shape[0], state["totals"]
        heads = {
            name: {
                "loss": totals["heads"][name]["loss"] + count * result["loss"][name],
                "correct": totals["heads"][name]["correct"] + result["correct"][name],
            }
            for name in names
        }
        return {
            "step": state["step"] + 1,
            "params": optax.apply_updates(state["params"], updates),
            "stats": stats,
            "optimizer": optimizer_state,
            "totals": {"images": totals["images"] + count, "heads": heads},
        }

    return train_step


def cross_entropy(logits: Float[Array, "b k"], labels: Int[Array, " b"]) -> Float[Array, ""]:
    """Mean over the batch of `-log softmax(logits)[label]`."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def to_unit_range(pixels: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """uint8, as it travels to the device, to float32 in [0, 1]."""
    return pixels.astype(jnp.float32) / 255


def _trained_heads(split: Split) -> list[str]:
    """Heads with trained parameters; GAP, which has none, when it is the trunk that is trained."""
    return sorted(split.params.get("heads", {})) or ["gap"]
