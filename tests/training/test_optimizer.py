"""Rates over a training, against PyTorch's schedulers and closed forms."""

from pathlib import Path

import numpy as np
import pytest

from castream_jax.experiment.config import base_config, open_config, stream_config
from castream_jax.training.optimizer import cosine, make_optimizer, warmed_up

ROOT = Path(__file__).parents[2]


def test_cosine_is_pytorchs_stepped_by_epoch(torch):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12, eta_min=0)
    steps_per_epoch = 5717 / 256
    schedule = cosine(1e-4, steps_per_epoch=steps_per_epoch, steps=12 * 5717 // 256)
    for epoch in range(12):
        first, last = round(epoch * steps_per_epoch), round((epoch + 1) * steps_per_epoch) - 1
        (rate,) = scheduler.get_last_lr()
        np.testing.assert_allclose([schedule(first), schedule(last)], rate, rtol=1e-5)
        optimizer.step()
        scheduler.step()


def test_warm_up_rises_to_the_rate_and_then_leaves_it():
    schedule = warmed_up(lambda step: 0.8, 5)
    np.testing.assert_allclose(
        [schedule(step) for step in range(7)], [0.16, 0.32, 0.48, 0.64, 0.8, 0.8, 0.8], rtol=1e-6
    )


def test_rates_are_scaled_to_the_batch_and_set_by_stream():
    config = base_config()
    with config.unlocked():
        config.streams.slow = stream_config(learning_rate=0.01)
    config.optimizer.update(reference_batch=256, warmup_epochs=2, decay_every=3)
    config.train.batch_size = 1024
    _, rates = make_optimizer(config, steps_per_epoch=10, steps=50)
    # 4 × 0.1 from the end of the second epoch on, a tenth of it from the end of the third.
    np.testing.assert_allclose(
        [rates["ca"](step) for step in (0, 9, 19, 29, 30)], [0.02, 0.2, 0.4, 0.4, 0.04], rtol=1e-6
    )
    np.testing.assert_allclose([rates["slow"](step) for step in (0, 20, 30)], [0.002, 0.04, 0.004], rtol=1e-6)


def test_pascal_recipe_is_the_official_one():
    config = open_config(ROOT / "configs" / "voc" / "resnet50.py")
    _, rates = make_optimizer(config, steps_per_epoch=10, steps=config.train.epochs * 10)
    assert (config.train.loss, config.train.epochs, config.optimizer.momentum) == ("binary_cross_entropy", 12, 0.9)
    np.testing.assert_allclose(rates["ca"](0), 1e-4, rtol=1e-6)
    np.testing.assert_allclose(rates["ca"](60), 0.5e-4, rtol=1e-6)
    config.optimizer.schedule = "linear"
    with pytest.raises(ValueError, match="must be 'step' or 'cosine', got 'linear'"):
        make_optimizer(config, steps_per_epoch=10, steps=10)
