"""Mixing, dropout, moving average, AdamW and clipping: each against PyTorch, torchvision or its closed form."""

from pathlib import Path
from typing import Any

import chex
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import castream_jax as castream
from castream_jax.backbones import fingerprint
from castream_jax.experiment.checkpoint import Checkpoints
from castream_jax.experiment.config import base_config
from castream_jax.experiment.model_parts import model_parts
from castream_jax.experiment.restore import restore_model
from castream_jax.runtime.mesh import data_mesh
from castream_jax.training import loop, train
from castream_jax.training.losses import cross_entropy
from castream_jax.training.mixing import blend, make_mix, mixed_labels, paste
from castream_jax.training.optimizer import make_optimizer
from castream_jax.training.recipe import check_recipe
from castream_jax.training.step import MovingAverage, initial_state, make_train_step

PIXELS = np.random.default_rng(0).random((4, 12, 10, 3), np.float32)
LABELS = np.array([2, 0, 1, 2], np.int32)


def of_torchvision(transform, torch, monkeypatch, share: float, centre: tuple[int, int] = (0, 0)):
    """Pixels and labels under a transform of torchvision whose draws are given."""
    monkeypatch.setattr(transform._dist, "sample", lambda size=(): torch.full(size, share), raising=False)
    draws = iter(centre)
    monkeypatch.setattr(torch, "randint", lambda *_, size, **__: torch.full(size, next(draws)))
    images, targets = transform(torch.tensor(PIXELS.transpose(0, 3, 1, 2)), torch.tensor(LABELS).long())
    return images.numpy().transpose(0, 2, 3, 1), targets.numpy()


def test_mixup_is_torchvisions(torch, torchvision, monkeypatch):
    from torchvision.transforms import v2  # pyright: ignore[reportMissingImports]

    images, targets = of_torchvision(v2.MixUp(alpha=0.2, num_classes=3), torch, monkeypatch, 0.7)
    np.testing.assert_allclose(blend(jnp.asarray(PIXELS), jnp.float32(0.7)), images, rtol=0, atol=1e-6)
    ours = mixed_labels(jnp.asarray(LABELS), jnp.roll(LABELS, 1), jnp.full(4, 0.7), num_classes=3)
    np.testing.assert_allclose(ours, targets, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("share", "column", "row"), [(0.4, 5, 6), (0.1, 9, 0), (0.96, 0, 11)])
def test_cutmix_is_torchvisions(torch, torchvision, monkeypatch, share: float, column: int, row: int):
    from torchvision.transforms import v2  # pyright: ignore[reportMissingImports]

    images, targets = of_torchvision(
        v2.CutMix(alpha=1.0, num_classes=3), torch, monkeypatch, share, centre=(column, row)
    )
    half = jnp.float32(0.5 * np.sqrt(1 - share))
    pixels, own = paste(jnp.asarray(PIXELS), jnp.int32(row), jnp.int32(column), half)
    np.testing.assert_array_equal(pixels, images)
    ours = mixed_labels(jnp.asarray(LABELS), jnp.roll(LABELS, 1), jnp.full(4, own), num_classes=3)
    np.testing.assert_allclose(ours, targets, rtol=0, atol=1e-6)


def test_each_batch_is_mixed_in_one_of_the_ways_by_what_seed_and_step_say():
    assert make_mix(0, 0, seed=0) is None
    mix = make_mix(0.2, 1.0, seed=3)
    assert mix is not None
    pixels, shares = jax.jit(jax.vmap(mix, (None, 0)))(jnp.asarray(PIXELS), jnp.arange(400))
    # Mixup gives values that neither image has; of a rectangle, each is one or the other.
    sources = np.stack([PIXELS, np.roll(PIXELS, 1, 0)])
    pasted = (np.abs(np.asarray(pixels)[:, None] - sources).min(1) < 1e-7).all((1, 2, 3, 4))
    assert 0.4 < pasted.mean() < 0.6  # 400 throws of a fair coin: 4 standard deviations
    assert 0.4 < np.asarray(shares)[~pasted].mean() < 0.6  # a symmetric beta distribution
    again, _ = jax.jit(mix)(jnp.asarray(PIXELS), jnp.int32(17))
    np.testing.assert_allclose(again, pixels[17], rtol=0, atol=1e-7)


def test_the_loss_of_a_mixed_image_is_the_mean_of_both_labels_losses():
    logits = jnp.asarray(np.random.default_rng(1).standard_normal((4, 3)), jnp.float32)
    targets = mixed_labels(jnp.asarray(LABELS), jnp.roll(LABELS, 1), jnp.full(4, 0.3), num_classes=3)
    own, other = (cross_entropy(logits, labels, 0.11) for labels in (jnp.asarray(LABELS), jnp.roll(LABELS, 1)))
    np.testing.assert_allclose(cross_entropy(logits, targets, 0.11), 0.3 * own + 0.7 * other, rtol=1e-6)


def test_adamw_is_pytorchs_with_clipping_and_a_cosine_after_the_warm_up(torch):
    config = base_config()
    config.optimizer.update(name="adamw", learning_rate=9e-3, weight_decay=0.3, schedule="cosine", warmup_epochs=10)
    config.train.clip = 0.5
    optimizer, rates = make_optimizer(config, steps_per_epoch=3, steps=3 * 110)
    rng = np.random.default_rng(0)
    ours: Any = {"heads": {"ca": {"kernel": jnp.asarray(rng.standard_normal((3, 2)), jnp.float32)}}}
    theirs = torch.nn.Parameter(torch.tensor(np.asarray(ours["heads"]["ca"]["kernel"])))
    torch_optimizer = torch.optim.AdamW([theirs], lr=9e-3, weight_decay=0.3)
    state = optimizer.init(ours)
    for step in range(5):
        gradient = rng.standard_normal((3, 2)).astype(np.float32)
        updates, state = optimizer.update({"heads": {"ca": {"kernel": jnp.asarray(gradient)}}}, state, ours)
        ours = optax.apply_updates(ours, updates)
        theirs.grad = torch.tensor(gradient)
        torch.nn.utils.clip_grad_norm_([theirs], 0.5)
        torch_optimizer.param_groups[0]["lr"] = float(rates["ca"](step))
        torch_optimizer.step()
    np.testing.assert_allclose(ours["heads"]["ca"]["kernel"], theirs.detach().numpy(), rtol=2e-6)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(torch_optimizer, T_max=100)
    for epoch in range(100):
        expected = scheduler.get_last_lr()[0] / scheduler.base_lrs[0] * 9e-3
        np.testing.assert_allclose(rates["ca"](3 * (10 + epoch)), expected, rtol=1e-5, atol=1e-9)
        torch_optimizer.step()
        scheduler.step()


def test_dropout_keeps_the_mean_and_is_off_without_keys():
    stages = tuple(jnp.asarray(np.random.default_rng(2).random((1, s, s, d)), jnp.float32) for s, d in ((4, 8), (2, 6)))
    stream = castream.CrossAttentionStream((8, 6), dropout=0.25, rngs=nnx.Rngs(0))
    plain = castream.CrossAttentionStream((8, 6), rngs=nnx.Rngs(0))
    chex.assert_trees_all_equal(stream(stages), plain(stages))
    keys = jax.random.split(jax.random.key(1), 4000)
    drawn = jax.vmap(lambda key: stream(stages, None, key[None])[0][0])(keys)
    assert 0.2 < float((drawn == 0).mean()) < 0.3
    # Linear in what is dropped from the last block on, whose query varies little: 5 % of the largest value.
    expected = plain(stages)[0][0]
    np.testing.assert_allclose(drawn.mean(0), expected, rtol=0, atol=0.05 * float(jnp.abs(expected).max()))


def second_recipe(model: castream.Model, mesh=None, **options):
    optimizer = optax.sgd(0.1)
    parts, average = model_parts(model, "streams"), MovingAverage(0.9, every=2, warmup=2)
    options = {"label_smoothing": 0.11, "mix": make_mix(0.2, 1.0, 0), "dropout_seed": 5, "average": average} | options
    return parts, initial_state(parts, optimizer, average), make_train_step(parts, optimizer, mesh=mesh, **options)


@pytest.fixture
def model() -> castream.Model:
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(1))
    stream = castream.CrossAttentionStream(backbone.stage_dims, start_stage=2, dropout=0.2, rngs=nnx.Rngs(2))
    return castream.Model(backbone, {"ca": stream})


@pytest.fixture
def batch() -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    pixels = jnp.asarray(rng.integers(0, 256, (8, 16, 16, 3), np.uint8))
    return {"pixels": pixels, "label": jnp.asarray(rng.integers(0, 10, 8), jnp.int32)}


@pytest.mark.slow
def test_devices_and_pieces_of_a_batch_draw_the_same(model, batch):
    """1e-5 absolute: sums run in another order."""
    ends = []
    for mesh, accumulate in ((None, 1), (data_mesh(jax.devices()[:4]), 1), (None, 2)):
        parts, state, step = second_recipe(model, mesh, accumulate=accumulate)
        step = jax.jit(step)
        for _ in range(3):
            state = step(state, parts.frozen, batch)
        ends.append(jax.device_get(state))
    for end in ends[1:]:
        chex.assert_trees_all_close(end, ends[0], rtol=1e-5, atol=1e-5)


def test_the_average_is_a_copy_while_warming_up_and_then_moves(model, batch):
    parts, state, step = second_recipe(model)
    step = jax.jit(step)
    params = [state["params"]]
    for _ in range(6):
        state = step(state, parts.frozen, batch)
        params.append(state["params"])
    after_2, after_4, after_6 = params[2], params[4], params[6]
    average = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, after_2, after_4)
    average = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, average, after_6)
    chex.assert_trees_all_close(state["average"], average, rtol=0, atol=1e-6)
    difference = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), state["average"], state["params"])
    assert max(jax.tree.leaves(difference)) > 1e-4


@pytest.mark.slow
def test_a_training_by_it_goes_on_to_the_same_bits_and_its_average_is_what_is_evaluated(
    tiny_config, tmp_path: Path, monkeypatch
):
    recipe = {"mixup": 0.2, "cutmix": 1.0, "clip": 1.0, "ema": 0.9, "ema_every": 2, "label_smoothing": 0.11}
    config = tiny_config(train=recipe, optimizer={"name": "adamw", "schedule": "cosine", "learning_rate": 1e-3})
    config.streams.ca.dropout = 0.1
    whole = train(config, tmp_path / "whole")

    calls, shard = iter(range(100)), loop.shard_batch
    monkeypatch.setattr(loop, "shard_batch", lambda *given: stop() if next(calls) == 7 else shard(*given))
    with pytest.raises(KeyboardInterrupt):  # after checkpoint 5
        train(config, tmp_path / "parts")
    monkeypatch.undo()
    train(config, tmp_path / "parts")
    restored = [restore_model(config, folder) for folder in (whole, tmp_path / "parts")]
    chex.assert_trees_all_equal(*(nnx.to_pure_dict(nnx.state(model.heads)) for model in restored))

    parts = model_parts(castream.Model(restored[0].backbone, {"ca": restored[0].heads["ca"]}), "streams")
    optimizer, _ = make_optimizer(config, steps_per_epoch=1438 / 120, steps=11)
    wanted = initial_state(parts, optimizer, MovingAverage(0.9, 2, 0))
    with Checkpoints(whole, fingerprint=fingerprint(restored[0].backbone), read_only=True) as checkpoints:
        _, state = checkpoints.restore(wanted)
    chex.assert_trees_all_equal(state["average"]["heads"]["ca"], parts.params["heads"]["ca"])
    assert not np.allclose(state["params"]["heads"]["ca"]["cls_token"], state["average"]["heads"]["ca"]["cls_token"])


def stop() -> None:
    raise KeyboardInterrupt


def test_what_cannot_be_together_is_refused(tiny_config):
    mesh = data_mesh(jax.devices()[:1])
    with pytest.raises(ValueError, match="mix images of one label each"):
        check_recipe(tiny_config(train={"loss": "binary_cross_entropy", "mixup": 0.2}), mesh)
    with pytest.raises(ValueError, match=r"config\.train\.ema averages streams"):
        check_recipe(tiny_config(train={"target": "backbone", "ema": 0.9}), mesh)
    with pytest.raises(ValueError, match=r"config\.optimizer\.name must be 'sgd' or 'adamw', got 'adam'"):
        check_recipe(tiny_config(optimizer={"name": "adam"}), mesh)
