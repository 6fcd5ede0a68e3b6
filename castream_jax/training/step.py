"""One training step: a pass of the backbone, then loss and update of every stream, or of the backbone itself."""

from collections.abc import Callable, Mapping
import functools
import math
from typing import Any, Literal, NamedTuple

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, Int32
import optax

from castream_jax.backbones.pooled_stages import own_pooling
from castream_jax.data.device_augment import INPUTS, Augment
from castream_jax.experiment.model_parts import ModelParts
from castream_jax.model import to_unit_range
from castream_jax.runtime.mesh import DATA_AXIS
from castream_jax.training.losses import binary_cross_entropy, cross_entropy, distillation
from castream_jax.training.mixing import Mix, before, mixed_labels

Tree = Any
State = dict[str, Tree]
Batch = Mapping[str, Array]
Loss = Literal["cross_entropy", "binary_cross_entropy", "distillation"]

# (params, stats, frozen, images of a batch, its number of images)
# -> (gradient of params, {"loss" and "correct": {head: sum over the images}}, new stats)
Gradient = Callable[[Tree, Tree, Tree, Batch, int], tuple[Tree, Tree, Tree]]


class MovingAverage(NamedTuple):
    """Exponential moving average of the parameters: every `every` steps, `decay` of itself and the rest of them.

    Over the first `warmup` steps it is a copy of them, as in the official code.
    """

    decay: float
    every: int
    warmup: int

    def update(self, average: Tree, params: Tree, step: Int32[Array, ""]) -> Tree:
        """The average after `step` steps, from 1."""
        decay = jnp.where(step <= self.warmup, 0.0, self.decay)
        due = step % self.every == 0
        return jax.tree.map(lambda old, new: jnp.where(due, decay * old + (1 - decay) * new, old), average, params)


def initial_state(
    parts: ModelParts, optimizer: optax.GradientTransformation, average: MovingAverage | None = None
) -> State:
    """Everything that changes during training, as one tree: what a checkpoint holds."""
    zeros = {name: {"loss": jnp.zeros(()), "correct": jnp.zeros((), jnp.int32)} for name in parts.heads}
    # A copy: the step donates its state, and the model that the parts belong to must outlive it.
    params, stats = jax.tree.map(jnp.copy, (parts.params, parts.stats))
    averaged = {} if average is None else {"average": jax.tree.map(jnp.copy, parts.params)}
    return averaged | {
        "step": jnp.zeros((), jnp.int32),
        "params": params,
        "stats": stats,
        "optimizer": optimizer.init(params),
        "totals": {"images": jnp.zeros((), jnp.int32), "heads": zeros},
    }


def make_train_step(
    parts: ModelParts,
    optimizer: optax.GradientTransformation,
    *,
    loss: Loss = "cross_entropy",
    label_smoothing: float = 0.0,
    accumulate: int = 1,
    augment: Augment | None = None,
    mix: Mix | None = None,
    dropout_seed: int | None = None,
    average: MovingAverage | None = None,
    mesh: Mesh | None = None,
) -> Callable[[State, Tree, Batch], State]:
    """The step to be jitted: `(state, frozen, batch) -> state`.

    `batch` is `{"pixels": uint8 [B, H, W, 3], "label": int32 [B]}`; where images have several labels, `"target"`,
    `[B, K]` of zeros and ones, stands in the label's place. `totals` accumulate loss, hits and images until they are
    read.

    Args:
        parts: of the model.
        optimizer: of `parts.params`.
        loss: `"cross_entropy"` of the label, `"binary_cross_entropy"` of every class, or `"distillation"`, of the
            probabilities under GAP: then labels are not read, and a hit is a prediction that is GAP's.
        label_smoothing: of the cross entropy.
        accumulate: pieces of the batch that are computed one after the other; their gradients are summed before the
            update. Memory is that of one piece. BatchNorm in training mode sees one piece at a time, as in PyTorch.
        augment: of `castream_jax.data.device_augment`, applied first: `batch` then holds what that reads, too.
        mix: of `castream_jax.training.mixing`, applied to the whole batch; a hit is then the image's own label.
        dropout_seed: what the dropout of streams is drawn from, with the step and the image's place in the batch;
            None: nothing is dropped.
        average: kept beside the parameters, as `"average"` of a state that was made with it.
        mesh: devices that share the batch. Each computes the gradient of its own images, and one all-reduce sums them;
            where BatchNorm is trained, whose statistics are those of the whole batch, XLA partitions the step.
    """
    compute_gradient = batch_gradient(parts, loss, label_smoothing)
    if accumulate > 1:
        compute_gradient = summed_over_pieces(compute_gradient, accumulate)
    if mesh is not None and mesh.size > 1 and not parts.stats:
        compute_gradient = summed_over_devices(compute_gradient, mesh)

    def train_step(state: State, frozen: Tree, batch: Batch) -> State:
        count = batch["pixels"].shape[0]
        batch = dict(batch) if augment is None else augmented(dict(batch), augment)
        batch = with_draws(batch, state["step"], mix, dropout_seed)
        gradient, sums, stats = compute_gradient(state["params"], state["stats"], frozen, batch, count)
        updates, optimizer_state = optimizer.update(gradient, state["optimizer"], state["params"])
        totals = state["totals"]
        heads = {
            name: {key: totals["heads"][name][key] + sums[key][name] for key in ("loss", "correct")}
            for name in parts.heads
        }
        step, params = state["step"] + 1, optax.apply_updates(state["params"], updates)
        averaged = {} if average is None else {"average": average.update(state["average"], params, step)}
        return averaged | {
            "step": step,
            "params": params,
            "stats": stats,
            "optimizer": optimizer_state,
            "totals": {"images": totals["images"] + count, "heads": heads},
        }

    return train_step


def augmented(batch: dict[str, Array], augment: Augment) -> dict[str, Array]:
    """The batch with its images as the device crops them, and without what only that reads."""
    pixels = augment(batch)
    return {name: rows for name, rows in batch.items() if name not in INPUTS} | {"pixels": pixels}


def with_draws(batch: dict[str, Array], step: Int32[Array, ""], mix: Mix | None, dropout_seed: int | None) -> Batch:
    """The batch as the gradient reads it: mixed, and with what is dropped; drawn of seed and step."""
    if mix is not None:
        pixels, share = mix(to_unit_range(batch["pixels"]), step)
        batch |= {"pixels": pixels, "own_share": jnp.full(pixels.shape[0], share)}
        if "label" in batch:
            batch["other_label"] = before(batch["label"])
    if dropout_seed is not None:
        key = jax.random.fold_in(jax.random.key(dropout_seed), step)
        batch["dropout"] = jax.random.key_data(jax.random.split(key, batch["pixels"].shape[0]))
    return batch


def batch_gradient(parts: ModelParts, loss: Loss, label_smoothing: float) -> Gradient:
    """What the given images, of a batch of `count`, add to the gradient and to losses and hits; and the new stats.

    The loss is the sum over heads of their means over the batch; heads share no parameter, so each is trained as if it
    were alone. Only `params` are differentiated: of a frozen backbone there is no backward pass to build.
    """
    names = parts.heads
    per_image = {
        "cross_entropy": functools.partial(cross_entropy, label_smoothing=label_smoothing),
        "binary_cross_entropy": binary_cross_entropy,
        "distillation": distillation,
    }[loss]

    def compute_gradient(params: Tree, stats: Tree, frozen: Tree, batch: Batch, count: int) -> tuple[Tree, Tree, Tree]:
        mixed = "own_share" in batch
        pixels = batch["pixels"] if mixed else to_unit_range(batch["pixels"])
        dropout = jax.random.wrap_key_data(batch["dropout"]) if "dropout" in batch else None

        def total_loss(params: Tree) -> tuple[Array, tuple[Tree, Tree]]:
            model = parts.merge(params, stats, frozen)
            stages = model.backbone.stages(pixels)
            if loss == "distillation":
                target = model.backbone.classify(own_pooling(stages))
                query = labels = jnp.argmax(target, -1)
            else:
                target = batch["label"] if loss == "cross_entropy" else batch["target"].astype(jnp.float32)
                query, labels = batch.get("label"), target
                if mixed:
                    target = mixed_labels(
                        labels, batch["other_label"], batch["own_share"], num_classes=model.backbone.num_classes
                    )
            all_logits = model.logits(stages, query, dropout)
            losses = {name: per_image(all_logits[name], target).sum() for name in names}
            hits = {name: hit(all_logits[name], labels).sum() for name in names}
            new_stats = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)) if stats else {}
            total = sum((losses[name] for name in names), start=jnp.zeros(()))
            return total / count, ({"loss": losses, "correct": hits}, new_stats)

        gradient, (sums, new_stats) = jax.grad(total_loss, has_aux=True)(params)
        return gradient, sums, new_stats

    return compute_gradient


def summed_over_pieces(compute_gradient: Gradient, pieces: int) -> Gradient:
    """The gradient of a batch in pieces, one after the other, so that memory is that of one piece."""

    def summed(params: Tree, stats: Tree, frozen: Tree, batch: Batch, count: int) -> tuple[Tree, Tree, Tree]:
        # Piece j holds the rows j, j + pieces, …: so each device keeps the rows it has.
        batches = jax.tree.map(lambda x: x.reshape(-1, pieces, *x.shape[1:]).swapaxes(0, 1), batch)

        def add(carry: tuple[Tree, Tree, Tree], piece: Batch) -> tuple[tuple[Tree, Tree, Tree], None]:
            gradient, sums, stats = carry
            more, more_sums, stats = compute_gradient(params, stats, frozen, piece, count)
            return (*jax.tree.map(jnp.add, (gradient, sums), (more, more_sums)), stats), None

        first = jax.tree.map(lambda x: x[0], batches)
        shapes = jax.eval_shape(lambda: compute_gradient(params, stats, frozen, first, count))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes[:2])
        return lax.scan(add, (*zeros, stats), batches)[0]

    return summed


def summed_over_devices(compute_gradient: Gradient, mesh: Mesh) -> Gradient:
    """The gradient of each device's images, summed over the devices in one all-reduce; for models without `stats`.

    Gradient, losses and hits travel as one float32 vector: counts of hits are exact in it up to 2^24 images.
    """

    def summed(params: Tree, stats: Tree, frozen: Tree, batch: Batch, count: int) -> tuple[Tree, Tree, Tree]:
        def local(params: Tree, frozen: Tree, batch: Batch) -> Tree:
            leaves, treedef = jax.tree.flatten(compute_gradient(params, stats, frozen, batch, count)[:2])
            flat = lax.psum(jnp.concatenate([leaf.astype(jnp.float32).ravel() for leaf in leaves]), DATA_AXIS)
            ends = [0]
            for leaf in leaves:
                ends.append(ends[-1] + math.prod(leaf.shape))
            return treedef.unflatten(
                flat[begin:end].reshape(leaf.shape).astype(leaf.dtype)
                for leaf, begin, end in zip(leaves, ends, ends[1:], strict=False)
            )

        whole = PartitionSpec()
        over_devices = jax.shard_map(
            local, mesh=mesh, in_specs=(whole, whole, PartitionSpec(DATA_AXIS)), out_specs=whole, check_vma=False
        )
        return (*over_devices(params, frozen, batch), stats)

    return summed


def hit(logits: Float[Array, "b k"], labels: Int[Array, " b"] | Float[Array, "b k"]) -> Int32[Array, " b"]:
    """1 where the largest logit is that of the label `[B]`, or of one of the labels `[B, K]`, else 0."""
    largest = jnp.argmax(logits, -1)
    if labels.ndim == 1:
        return (largest == labels).astype(jnp.int32)
    return jnp.take_along_axis(labels, largest[:, None], axis=1)[:, 0].astype(jnp.int32)
