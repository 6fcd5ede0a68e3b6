"""A CA-Stream beside the published CIFAR-10 ResNet-20, on a class-per-folder tree of images.

The data is a folder with `train/<class>/*` and `test/<class>/*`, the weights the published `resnet20-12fca82f.th`
(He et al., option A shortcuts):

    castream train --config configs/cifar10/resnet20.py --workdir workdirs/cifar10 \\
        --config.data.path=DATA --config.backbone.weights=resnet20-12fca82f.th
    castream evaluate --config … --workdir workdirs/cifar10 (the same fields), then castream report --workdir …

9 epochs of the paper's recipe in short: batch 256, rate 0.1 divided by 10 every 3 epochs, flips and shifts of 4 pixels.
Measured results are in docs/results.md.
"""

from castream_jax.experiment.config import Config, base_config


def get_config() -> Config:
    config = base_config()
    config.name = "CIFAR-10, ResNet-20"
    config.data.update(image_size=32, resize="none", flip=True, crop_padding=4)
    config.backbone.update(name="cifar_resnet20", num_classes=10)
    config.optimizer.decay_every = 3
    config.train.epochs = 9
    config.evaluation.batch_size = 200
    return config
