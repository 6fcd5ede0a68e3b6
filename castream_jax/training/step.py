"""One training step: a trunk pass, then loss and update of every stream (or, to train it, of the trunk itself)."""

from collections.abc import Callable, Mapping
import functools
import math
from typing import Any, Literal, NamedTuple, TypeVar

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Float32, Int, Int32, UInt8
import numpy as np
import optax

from castream_jax.layers import BatchNorm
from castream_jax.model import Model
from castream_jax.runtime.mesh import DATA_AXIS
from castream_jax.training.losses import binary_cross_entropy, cross_entropy

Tree = Any
State = dict[str, Tree]
Batch = Mapping[str, Array]
Loss = Literal["cross_entropy", "binary_cross_entropy"]

_Images = TypeVar("_Images", Array, np.ndarray)


class Split(NamedTuple):
    """A model as data: what is trained, what the forward pass updates, what never changes."""

    graphdef: nnx.GraphDef
    params: Tree
    stats: Tree
    frozen: Tree


def split_model(
    model: Model, target: Literal["streams", "backbone"], batch_norm: Literal["train", "frozen"] = "train"
) -> Split:
    """Pure dictionaries of the model's arrays by their part in training.

    `"streams"`: the heads are trained, and everything of the trunk, BatchNorm statistics too, is frozen.
    `"backbone"`: parameters are trained under GAP. BatchNorm is in training mode, its statistics taken over the whole
    batch; or it is `"frozen"`, and its statistics, scales and offsets stay what they are.

    Raises:
        ValueError: for another target, or another way with BatchNorm.
    """
    if target == "streams":
        graphdef, params, frozen = nnx.split(model, nnx.PathContains("heads"), ...)
        return Split(graphdef, nnx.to_pure_dict(params), {}, nnx.to_pure_dict(frozen))
    if target != "backbone":
        raise ValueError(f"config.train.target must be 'streams' or 'backbone', got {target!r}.")
    if batch_norm == "train":
        model.backbone.train()
        graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
        return Split(graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(stats), {})
    if batch_norm == "frozen":
        norms = {path for path, node in nnx.iter_graph(model) if isinstance(node, BatchNorm)}
        graphdef, frozen, params = nnx.split(model, lambda path, _: path[:-1] in norms, nnx.Param)
        return Split(graphdef, nnx.to_pure_dict(params), {}, nnx.to_pure_dict(frozen))
    raise ValueError(f"config.train.batch_norm must be 'train' or 'frozen', got {batch_norm!r}.")


def initial_state(split: Split, optimizer: optax.GradientTransformation) -> State:
    """Everything that changes during training, as one tree: what a checkpoint holds."""
    zeros = {name: {"loss": jnp.zeros(()), "correct": jnp.zeros((), jnp.int32)} for name in trained_heads(split)}
    # A copy: the step donates its state, and the model that was split must outlive it.
    params, stats = jax.tree.map(jnp.copy, (split.params, split.stats))
    return {
        "step": jnp.zeros((), jnp.int32),
        "params": params,
        "stats": stats,
        "optimizer": optimizer.init(params),
        "totals": {"images": jnp.zeros((), jnp.int32), "heads": zeros},
    }


def make_train_step(
    split: Split,
    optimizer: optax.GradientTransformation,
    *,
    loss: Loss = "cross_entropy",
    label_smoothing: float = 0.0,
    accumulate: int = 1,
    mesh: Mesh | None = None,
) -> Callable[[State, Tree, Batch], State]:
    """The step to be jitted: `(state, frozen, batch) -> state`.

    `batch` is `{"pixels": uint8 [B, H, W, 3], "label": int32 [B]}`; where images have several labels, `"target"`,
    `[B, K]` of zeros and ones, stands in the label's place. The loss is the sum over heads of their means over the
    batch; heads share no parameter, so each is trained as if it were alone. Only `params` are differentiated: of a
    frozen trunk there is no backward pass to build. `totals` accumulate loss, hits and images until they are read.

    Args:
        split: the model.
        optimizer: of `split.params`.
        loss: `"cross_entropy"` of the label, or `"binary_cross_entropy"` of every class.
        label_smoothing: of the cross entropy.
        accumulate: parts of the batch that are computed one after the other; their gradients are summed before the
            update. Memory is that of one part. BatchNorm in training mode sees one part at a time, as in PyTorch.
        mesh: devices the batch is split over. Each computes the gradient of its own images, and one all-reduce sums
            them; where BatchNorm is trained, whose statistics are those of the whole batch, XLA splits the step.
    """
    names = trained_heads(split)
    loss_of = (
        binary_cross_entropy
        if loss == "binary_cross_entropy"
        else functools.partial(cross_entropy, label_smoothing=label_smoothing)
    )

    def gradient_of(params: Tree, stats: Tree, frozen: Tree, batch: Batch, count: int) -> tuple[Tree, Tree, Tree]:
        """What these images of a batch of `count` add to the gradient and to losses and hits; and the new stats."""
        pixels = to_unit_range(batch["pixels"])
        labels = batch["label"] if loss == "cross_entropy" else batch["target"].astype(jnp.float32)

        def total_loss(params: Tree) -> tuple[Array, tuple[Tree, Tree]]:
            model = nnx.merge(split.graphdef, params, *(tree for tree in (stats, frozen) if tree))
            all_logits = model.logits(model.backbone.stages(pixels), query=batch.get("label"))
            losses = {name: loss_of(all_logits[name], labels).sum() for name in names}
            hits = {name: hit(all_logits[name], labels).sum() for name in names}
            new_stats = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)) if stats else {}
            total = sum((losses[name] for name in names), start=jnp.zeros(()))
            return total / count, ({"loss": losses, "correct": hits}, new_stats)

        gradient, (sums, stats) = jax.grad(total_loss, has_aux=True)(params)
        return gradient, sums, stats

    def accumulated(params: Tree, stats: Tree, frozen: Tree, batch: Batch, count: int) -> tuple[Tree, Tree, Tree]:
        if accumulate == 1:
            return gradient_of(params, stats, frozen, batch, count)
        # Part j holds the rows j, j + accumulate, …: so each device keeps the rows it has.
        parts = jax.tree.map(lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), dict(batch))

        def add(carry: tuple[Tree, Tree, Tree], part: Batch) -> tuple[tuple[Tree, Tree, Tree], None]:
            gradient, sums, stats = carry
            more, more_sums, stats = gradient_of(params, stats, frozen, part, count)
            return (*jax.tree.map(jnp.add, (gradient, sums), (more, more_sums)), stats), None

        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(lambda: gradient_of(params, stats, frozen, first, count))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes[:2])
        return lax.scan(add, (*zeros, stats), parts)[0]

    def train_step(state: State, frozen: Tree, batch: Batch) -> State:
        count = batch["pixels"].shape[0]
        if mesh is None or mesh.size == 1 or state["stats"]:
            gradient, sums, stats = accumulated(state["params"], state["stats"], frozen, batch, count)
        else:
            gradient, sums = _summed_over_devices(
                lambda params, frozen, batch: accumulated(params, {}, frozen, batch, count)[:2], mesh
            )(state["params"], frozen, dict(batch))
            stats = {}
        updates, optimizer_state = optimizer.update(gradient, state["optimizer"], state["params"])
        totals = state["totals"]
        heads = {
            name: {key: totals["heads"][name][key] + sums[key][name] for key in ("loss", "correct")} for name in names
        }
        return {
            "step": state["step"] + 1,
            "params": optax.apply_updates(state["params"], updates),
            "stats": stats,
            "optimizer": optimizer_state,
            "totals": {"images": totals["images"] + count, "heads": heads},
        }

    return train_step


def to_unit_range(pixels: UInt8[_Images, "b h w 3"]) -> Float32[_Images, "b h w 3"]:
    """uint8, as it travels to the device, to float32 in [0, 1]."""
    return pixels.astype(jnp.float32) / 255


def trained_heads(split: Split) -> list[str]:
    """Heads with trained parameters; GAP, which has none, when it is the trunk that is trained."""
    return sorted(split.params.get("heads", {})) or ["gap"]


def hit(logits: Float[Array, "b k"], labels: Int[Array, " b"] | Float[Array, "b k"]) -> Int32[Array, " b"]:
    """1 where the largest logit is that of the label `[B]`, or of one of the labels `[B, K]`, else 0."""
    largest = jnp.argmax(logits, -1)
    if labels.ndim == 1:
        return (largest == labels).astype(jnp.int32)
    return jnp.take_along_axis(labels, largest[:, None], axis=1)[:, 0].astype(jnp.int32)


def _summed_over_devices(function: Callable[..., Tree], mesh: Mesh) -> Callable[..., Tree]:
    """`function(params, frozen, batch)` of each device's images, summed over the devices in one all-reduce.

    The leaves of the result travel as one float32 vector: counts of hits are exact in it up to 2^24 images.
    """

    def local(params: Tree, frozen: Tree, batch: Batch) -> Tree:
        leaves, treedef = jax.tree.flatten(function(params, frozen, batch))
        flat = lax.psum(jnp.concatenate([leaf.astype(jnp.float32).ravel() for leaf in leaves]), DATA_AXIS)
        ends = [0]
        for leaf in leaves:
            ends.append(ends[-1] + math.prod(leaf.shape))
        return treedef.unflatten(
            flat[begin:end].reshape(leaf.shape).astype(leaf.dtype)
            for leaf, begin, end in zip(leaves, ends, ends[1:], strict=False)
        )

    whole = PartitionSpec()
    return jax.shard_map(
        local, mesh=mesh, in_specs=(whole, whole, PartitionSpec(DATA_AXIS)), out_specs=whole, check_vma=False
    )
