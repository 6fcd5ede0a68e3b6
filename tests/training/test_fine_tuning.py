"""A backbone trained from weights under GAP, step by step as PyTorch trains torchvision's, then frozen for a stream."""

# pyright: reportAttributeAccessIssue=false

import json
from pathlib import Path

import chex
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import castream_jax as castream
from castream_jax.backbones import torch_state_dict
from castream_jax.backbones.resnet import BasicBlock, ResNet
from castream_jax.experiment.build import open_backbone
from castream_jax.experiment.model_parts import model_parts
from castream_jax.experiment.restore import restore_model
from castream_jax.runtime.mesh import data_mesh
from castream_jax.training import train
from castream_jax.training.optimizer import sgd
from castream_jax.training.step import initial_state, make_train_step
from castream_jax.weights.files import read_weights


def batches(count: int):
    """Pixels that are 0 or 1 after division by 255, exactly.

    The last bit of others can decide a maximum in the stem's pooling, and the gradient then takes another path.
    """
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield {
            "pixels": 255 * rng.integers(0, 2, (8, 64, 64, 3), np.uint8),
            "label": rng.integers(0, 5, 8).astype(np.int32),
        }


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", ["train", "frozen"])
def test_fine_tuning_is_pytorchs(torchvision, batch_norm: str):
    # One step, 2e-4 of the largest change: float32, sums of 8 × 64 × 64 terms in another order.
    import torch  # pyright: ignore[reportMissingImports]  # after the fixture, which skips where it is not installed

    torch_resnet = torchvision.models.resnet
    backbone = ResNet("resnet10", BasicBlock, (1, 1, 1, 1), num_classes=5, rngs=nnx.Rngs(0))
    theirs = torch_resnet.ResNet(torch_resnet.BasicBlock, [1, 1, 1, 1], num_classes=5)
    before = torch_state_dict(backbone)
    theirs.load_state_dict({name: torch.tensor(value) for name, value in before.items()}, strict=False)
    theirs.train()
    norms = [module for module in theirs.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    if batch_norm == "frozen":
        for module in norms:
            module.eval()
            module.requires_grad_(False)
    optimizer = torch.optim.SGD(
        [parameter for parameter in theirs.parameters() if parameter.requires_grad], 0.01, 0.9, weight_decay=1e-2
    )
    model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling()})
    parts = model_parts(model, "backbone", batch_norm)
    ours = sgd(optax.constant_schedule(0.01), momentum=0.9, weight_decay=1e-2)
    state, step = initial_state(parts, ours), jax.jit(make_train_step(parts, ours, label_smoothing=0.1))
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (backbone.mean, backbone.std))
    for batch in batches(1):
        state = step(state, parts.frozen, batch)
        pixels = torch.tensor(batch["pixels"]).permute(0, 3, 1, 2).float() / 255
        optimizer.zero_grad()
        logits = theirs((pixels - mean) / std)
        torch.nn.functional.cross_entropy(logits, torch.tensor(batch["label"]).long(), label_smoothing=0.1).backward()
        optimizer.step()
    nnx.update(model, state["params"])
    nnx.update(model, state["stats"])
    after = torch_state_dict(backbone)
    expected = theirs.state_dict()
    for name, value in after.items():
        if name.endswith("running_var") and batch_norm == "train":
            continue  # Flax averages biased variances, PyTorch unbiased ones; both normalise by biased ones
        change = np.abs(before[name] - expected[name].numpy()).max()
        assert np.abs(value - expected[name].numpy()).max() <= 2e-4 * change + 1e-7, name
        of_norm = "bn" in name or "downsample.1" in name
        assert (change > 0) == (batch_norm == "train" or not of_norm), name


@pytest.mark.slow
def test_parts_of_a_batch_add_up_to_its_gradient(small_model):
    rng = np.random.default_rng(0)
    batch = {
        "pixels": rng.integers(0, 256, (16, 16, 16, 3), np.uint8),
        "label": rng.integers(0, 10, 16).astype(np.int32),
    }
    optimizer = sgd(optax.constant_schedule(0.1), momentum=0.9, weight_decay=1e-4)
    parts = model_parts(small_model, "streams")

    def trained(**options):
        state, step = initial_state(parts, optimizer), jax.jit(make_train_step(parts, optimizer, **options))
        state = step(state, parts.frozen, batch)
        # The momentum is the gradient; the parameters' change is that rounded to the parameters.
        return state["optimizer"], state["totals"]

    whole = trained()
    mesh = data_mesh(jax.devices()[:2])
    for options in ({"accumulate": 4}, {"accumulate": 4, "mesh": mesh}):
        for ours, expected in zip(jax.tree.leaves(trained(**options)), jax.tree.leaves(whole), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * float(jnp.abs(expected).max()))


@pytest.mark.slow
def test_batch_norm_sees_one_part_of_a_batch_at_a_time():
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling()})
    parts = model_parts(model, "backbone")
    optimizer = sgd(optax.constant_schedule(0.1), momentum=0.0, weight_decay=0.0)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 16, 16, 3), np.uint8)
    labels = rng.integers(0, 10, 8).astype(np.int32)
    step = make_train_step(parts, optimizer, accumulate=2)
    state = initial_state(parts, optimizer)
    after = jax.jit(step)(state, {}, {"pixels": pixels, "label": labels})

    def loss(params, stats, pixels, labels):
        model = nnx.merge(parts.graphdef, params, stats)
        logits = model.logits(model.backbone.stages(pixels.astype(jnp.float32) / 255))["gap"]  # statistics of the batch
        log_probabilities = jax.nn.log_softmax(logits)
        value = -jnp.take_along_axis(log_probabilities, labels[:, None], 1).mean()
        return value, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    gradients, stats = [], parts.stats
    for part in (0, 1):
        gradient, stats = jax.jit(jax.grad(loss, has_aux=True))(parts.params, stats, pixels[part::2], labels[part::2])
        gradients.append(gradient)
    expected = jax.tree.map(lambda p, a, b: p - 0.1 * (a + b) / 2, parts.params, *gradients)
    chex.assert_trees_all_close(after["params"], expected, rtol=0, atol=1e-5)
    chex.assert_trees_all_close(after["stats"], stats, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("unchecked_calls")
@pytest.mark.slow
def test_fine_tune_then_freeze_then_stream(tiny_config, tmp_path: Path, resnet8_weights: Path):
    tuning = {"target": "backbone", "batch_norm": "frozen", "validate_every": 1}
    config = tiny_config(train=tuning, backbone={"new_classifier": True}, optimizer={"learning_rate": 0.02})
    begin = open_backbone(config)
    weights = read_weights(resnet8_weights)
    assert not np.allclose(begin.linear.kernel[...].T, weights["linear.weight"])
    tuned = train(config, tmp_path / "tuned") / "export" / "backbone.safetensors"
    moved = {name for name, value in read_weights(tuned).items() if not np.array_equal(value, weights[name])}
    assert moved == {name for name in weights if "bn" not in name}
    lines = [json.loads(line) for line in (tmp_path / "tuned" / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["gap/loss"] > lines[-2]["gap/loss"]
    assert 0 <= lines[-1]["gap/validation_accuracy"] <= 1

    beside = tiny_config(backbone={"weights": str(tuned)})
    workdir = train(beside, tmp_path / "stream")
    chex.assert_trees_all_equal(torch_state_dict(restore_model(beside, workdir).backbone), read_weights(tuned))
    with pytest.raises(ValueError, match="new_classifier is for fine-tuning: it needs weights and"):
        train(tiny_config(backbone={"new_classifier": True}), tmp_path / "other")
    with pytest.raises(ValueError, match="must be 'train' or 'frozen', got 'thawed'"):
        train(tiny_config(train={"target": "backbone", "batch_norm": "thawed"}), tmp_path / "other")
