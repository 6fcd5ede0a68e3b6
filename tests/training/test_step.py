"""One step: what it costs, what it leaves alone, and that it is PyTorch's SGD."""

import re

import chex
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import castream_jax as castream
from castream_jax.experiment.model_parts import model_parts
from castream_jax.model import to_unit_range
from castream_jax.runtime.mesh import data_mesh, replicated, split_over_images
from castream_jax.training.optimizer import per_stream, sgd, step_decay
from castream_jax.training.step import initial_state, make_train_step


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return {
        "pixels": jnp.asarray(rng.integers(0, 256, (8, 16, 16, 3), np.uint8)),
        "label": jnp.asarray(rng.integers(0, 10, 8), jnp.int32),
    }


def build(model: castream.Model, target="streams", rate: float = 0.1, **options):
    optimizer = sgd(optax.constant_schedule(rate), momentum=0.9, weight_decay=1e-4)
    parts = model_parts(model, target)
    return parts, initial_state(parts, optimizer), make_train_step(parts, optimizer, **options)


def count_convolutions(compiled: jax.stages.Compiled) -> int:
    return len(re.findall(r"= \S+ (?:convolution\(|custom-call\(.*conv)", compiled.as_text()))


def test_step_has_no_backward_pass_of_the_trunk(small_model, batch):
    parts, state, step = build(small_model)
    graphdef, trunk = nnx.split(small_model.backbone)

    def forward(trunk, pixels):
        backbone = nnx.merge(graphdef, trunk)
        return backbone.classify(backbone.stages(to_unit_range(pixels))[-1].mean((1, 2)))

    forward_compiled = jax.jit(forward).lower(trunk, batch["pixels"]).compile()
    step_compiled = jax.jit(step).lower(state, parts.frozen, batch).compile()
    assert count_convolutions(forward_compiled) == 7  # of ResNet-8: one, and two in each of three blocks
    assert count_convolutions(step_compiled) == 7
    # A backward pass would cost two more forward passes.
    assert step_compiled.cost_analysis()["flops"] < 1.3 * forward_compiled.cost_analysis()["flops"]


def test_a_backward_pass_of_the_trunk_is_seen_where_there_is_one(batch):
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    _, state, step = build(castream.Model(backbone, {"gap": castream.GlobalAveragePooling()}), "backbone")
    assert count_convolutions(jax.jit(step).lower(state, {}, batch).compile()) > 7


def test_training_a_stream_lowers_its_loss_and_leaves_the_trunk_alone(small_model, batch):
    parts, state, step = build(small_model)
    before = jax.tree.map(np.array, parts.frozen)
    step = jax.jit(step, donate_argnums=0)
    losses = []
    for _ in range(30):
        state = step(state, parts.frozen, batch)
        losses.append(float(state["totals"]["heads"]["ca"]["loss"]))
    each = np.diff(losses, prepend=0) / 8
    assert each[-1] < 0.5 * each[0]
    assert int(state["totals"]["images"]) == 30 * 8
    chex.assert_trees_all_equal(parts.frozen, before)


@pytest.mark.slow
def test_streams_trained_together_have_the_bits_of_those_trained_alone(small_model, batch):
    dims = small_model.backbone.stage_dims
    streams = {
        f"s{stage}": castream.CrossAttentionStream(dims, start_stage=stage, rngs=nnx.Rngs(stage)) for stage in range(4)
    }
    streams["proj_ca"] = castream.CrossAttentionStream(dims, block="proj_ca", rngs=nnx.Rngs(4))
    streams["class_specific"] = castream.CrossAttentionStream(dims, num_queries=10, rngs=nnx.Rngs(5))
    streams["again"] = castream.CrossAttentionStream(dims, rngs=nnx.Rngs(6))
    rates = dict(zip(streams, (0.1, 0.2, 0.3, 0.1, 0.05, 0.1, 0.1), strict=True))

    def train(names):
        parts = model_parts(castream.Model(small_model.backbone, {name: streams[name] for name in names}), "streams")
        optimizer = per_stream(
            {name: sgd(optax.constant_schedule(rates[name]), momentum=0.9, weight_decay=1e-4) for name in names}
        )
        state, step = initial_state(parts, optimizer), jax.jit(make_train_step(parts, optimizer))
        for _ in range(4):
            state = step(state, parts.frozen, batch)
        return {
            name: (state["params"]["heads"][name], state["optimizer"][name], state["totals"]["heads"][name])
            for name in names
        }

    together = train(streams)
    for name in streams:
        chex.assert_trees_all_equal(together[name], train([name])[name])


@pytest.mark.slow
def test_devices_exchange_nothing_but_one_sum_of_gradients(small_model):
    mesh = data_mesh(jax.devices()[:4])
    rng = np.random.default_rng(0)
    batch = {
        "pixels": rng.integers(0, 256, (16, 16, 16, 3), np.uint8),
        "label": rng.integers(0, 10, 16).astype(np.int32),
    }
    for accumulate in (1, 2):
        parts, state, step = build(small_model, accumulate=accumulate, mesh=mesh)
        alone = jax.jit(build(small_model, accumulate=accumulate)[2])(state, parts.frozen, batch)
        compiled = jax.jit(step, in_shardings=(replicated(mesh), replicated(mesh), split_over_images(mesh)))
        assert collectives(compiled.lower(state, parts.frozen, batch).compile().as_text()) == {"all-reduce": 1}
        # 1e-6 absolute, 1e-6 relative for the sum of losses: each device sums its own images first.
        chex.assert_trees_all_close(compiled(state, parts.frozen, batch), alone, rtol=1e-6, atol=1e-6)


def collectives(hlo: str) -> dict[str, int]:
    """How often each collective operation occurs in a compiled program."""
    kinds = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|collective-broadcast"
    found = re.findall(rf"= [^=]*?\b({kinds})(?:-start)?\(", hlo)
    return {kind: found.count(kind) for kind in sorted(set(found))}


def test_class_specific_stream_is_trained_from_the_labels_query(small_model, batch):
    stream = castream.CrossAttentionStream(small_model.backbone.stage_dims, num_queries=10, rngs=nnx.Rngs(1))
    parts, state, step = build(castream.Model(small_model.backbone, {"ca": stream}), rate=100)
    batch = {**batch, "label": jnp.full(8, 3, jnp.int32)}
    # Weight decay moves all tokens; beyond it, the gradient moves the label's alone.
    after = jax.jit(step)(state, parts.frozen, batch)["params"]["heads"]["ca"]["cls_token"]
    moved = np.abs(np.asarray(after) - (1 - 100 * 1e-4) * np.asarray(stream.cls_token[...])).max(1)
    assert moved[3] > 1e-3
    assert np.delete(moved, 3).max() < 1e-5


def test_training_the_backbone_updates_parameters_and_statistics(batch):
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    parts, state, step = build(castream.Model(backbone, {"gap": castream.GlobalAveragePooling()}), "backbone")
    after = jax.jit(step)(state, parts.frozen, batch)
    for part in ("params", "stats"):
        for path, leaf in jax.tree_util.tree_leaves_with_path(after[part]):
            before = np.asarray(dict(jax.tree_util.tree_leaves_with_path(state[part]))[path])
            assert not np.array_equal(leaf, before), f"{part}{jax.tree_util.keystr(path)} has not moved"


@pytest.mark.usefixtures("unchecked_calls")
def test_unknown_target_is_refused(small_model):
    with pytest.raises(ValueError, match="must be 'streams' or 'backbone', got 'all'"):
        model_parts(small_model, "all")  # pyright: ignore[reportArgumentType]


def test_sgd_is_pytorchs(torch):
    start = np.random.default_rng(0).standard_normal(50).astype(np.float32)
    target = np.linspace(-1, 1, 50, dtype=np.float32)
    weight = torch.nn.Parameter(torch.tensor(start))
    theirs = torch.optim.SGD([weight], lr=0.1, momentum=0.9, weight_decay=1e-2)
    decay = torch.optim.lr_scheduler.StepLR(theirs, 4, 0.1)
    schedule = step_decay(0.1, factor=10, every=2, steps_per_epoch=2, steps=12)
    ours = sgd(schedule, momentum=0.9, weight_decay=1e-2)
    params = jnp.asarray(start)
    state = ours.init(params)
    for _ in range(12):
        theirs.zero_grad()
        ((weight - torch.tensor(target)) ** 2).sum().backward()
        theirs.step()
        decay.step()
        updates, state = ours.update(2 * (params - target), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, weight.detach().numpy(), rtol=0, atol=1e-6)


def test_rate_falls_at_whole_epochs():
    schedule = step_decay(0.1, factor=10, every=3, steps_per_epoch=195.3125, steps=1757)
    rates = [float(schedule(step)) for step in (0, 585, 586, 1171, 1172, 1756)]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-6)
    constant = step_decay(0.1, factor=10, every=0, steps_per_epoch=10, steps=100)
    assert float(constant(99)) == pytest.approx(0.1)


def test_distillation_reads_no_label_and_begins_at_gaps_entropy(small_model, batch):
    """A stream that starts as GAP: the loss is the entropy of GAP's predictions, every hit is GAP's, and trains."""
    backbone = small_model.backbone
    stream = castream.CrossAttentionStream(backbone.stage_dims, init="gap", rngs=nnx.Rngs(0))
    model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling(), "ca": stream})
    parts, state, step = build(model, loss="distillation")
    after = jax.jit(step)(state, parts.frozen, {"pixels": batch["pixels"]})
    probabilities = jax.nn.softmax(model(to_unit_range(batch["pixels"]))["gap"])
    entropy = -(probabilities * jnp.log(probabilities)).sum()
    totals = after["totals"]["heads"]["ca"]
    np.testing.assert_allclose(totals["loss"], entropy, rtol=1e-5)
    assert totals["correct"] == len(batch["pixels"])
