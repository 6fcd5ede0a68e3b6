"""Ablation, ResNet-50, ImageNet: blocks with and without projections of keys and values (supplementary, table 3).

Paper: CA-Stream (Torres et al., XAI4CV 2024), supplementary, table 3 and eq. 1.
Expected, accuracy in percent and parameters of the stream:

    Accuracy    CA               74.70  6.96M
    Accuracy    PROJ→CA          74.41 18.13M

The exact counts are 6,969,152 and 18,126,272. Only accuracy is asked for, so few images are explained.

Hardware: 8 V100 in the paper, 32 images on each. On one H200, at the throughputs that
`castream reproduce supp-table3 --dry-run` assumes, 10.5 h of training and 0.01 h of evaluation.

    castream reproduce supp-table3 --data IMAGENET --workdir workdirs/reproduce

The reproduction trains all ablations in one run, `configs/ablations/all.py`, for the trunk is nearly all the work.
This one alone:

    castream train --config configs/ablations/block_design.py --workdir workdirs/block-design \\
        --config.data.path=IMAGENET
    castream evaluate --workdir workdirs/block-design

Forms: `:small`, digits and ResNet-8, needs nothing; `:cifar10`, CIFAR-10 and the published ResNet-20.
"""

from ml_collections import ConfigDict

from castream_jax.experiment.config import Config, base_config, stream_config
from common import METHODS, ablation_rehearsal, check_form


def get_config(form: str = "") -> Config:
    check_form(form, "small", "cifar10")
    name = "Ablation: block design"
    config = ablation_rehearsal(name, form) if form else resnet50_on_imagenet(name)
    config.streams = ConfigDict(
        {
            "ca": stream_config(block="ca"),
            # Ours: beside the small ResNet-20 it diverges at the paper's learning rate of 0.1.
            "proj_ca": stream_config(block="proj_ca", learning_rate=0.01 if form == "cifar10" else 0.0),
        }
    ).lock()
    config.evaluation.update(methods=("attention",), max_images=24)  # the table has accuracy alone
    return config


def resnet50_on_imagenet(name: str) -> Config:
    config = base_config()
    config.name = name
    # The recipe of `configs/imagenet/resnet50.py`, where the source of each value is said.
    config.data.update(source="imagenet", train_split="train", test_split="val", image_size=224, resize="squash")
    config.data.update(random_resized_crop=True, flip=True, brightness=0.4, num_threads=16)
    config.backbone.update(name="resnet50", weights="imagenet1k_v1", num_classes=1000, dtype="float32")
    config.optimizer.update(learning_rate=0.1, momentum=0.9, weight_decay=1e-4)
    config.optimizer.update(schedule="step", decay_every=30.0, decay_factor=10.0)
    config.train.update(target="streams", loss="cross_entropy", epochs=90, batch_size=256)
    config.evaluation.update(protocol="castream", methods=METHODS, max_images=0, baselines=True, batch_size=64)
    return config
