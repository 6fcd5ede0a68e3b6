"""The backbone of the quickstart: a CIFAR ResNet-8 pretrained under GAP on handwritten digits amid clutter.

Its weights ship with the package (`castream_jax/weights/digits_cifar_resnet8.safetensors`). This makes them again:

    castream train --config configs/digits/pretrain.py --workdir workdirs/digits-pretrain

and leaves them in `workdirs/digits-pretrain/export/backbone.safetensors`. About ten minutes on two CPU cores. Bits may
differ between machines; accuracy does not, by more than some tenths of a point.
"""

from castream_jax.experiment.config import Config, base_config


def get_config() -> Config:
    """All of it is our choice; the optimiser is the paper's but for the schedule and the weight decay."""
    config = base_config()
    config.name = "Digits, backbone"
    config.data.update(source="digits", image_size=64, resize="none", flip=False, canvases_per_digit=20, seed=1)
    config.backbone.update(name="cifar_resnet8", weights="", num_classes=10)
    config.optimizer.update(learning_rate=0.1, momentum=0.9, weight_decay=5e-4)
    config.optimizer.update(schedule="step", decay_every=1.5, decay_factor=10.0)
    config.train.update(target="backbone", loss="cross_entropy", batch_norm="train", epochs=4, batch_size=128)
    config.train.update(log_every=50, checkpoint_every=200)
    return config
