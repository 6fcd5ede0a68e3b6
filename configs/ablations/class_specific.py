"""Ablation, ResNet-50, ImageNet: one CLS token for all classes, or one per class (supplementary, table 5).

Paper: CA-Stream (Torres et al., XAI4CV 2024), supplementary, table 5.
Expected, in percent (Accuracy and parameters of stream and backbone, then AD, AG, AI, I, D):

    Accuracy    Class agnostic   74.70 32.53M
    Accuracy    Class specific   74.68 32.59M
    Grad-CAM    Class agnostic   12.54  22.67  48.56  75.53  13.50
    Grad-CAM    Class specific   12.53  22.66  48.58  75.54  13.50
    Grad-CAM++  Class agnostic   13.99  19.29  44.60  75.21  13.78
    Grad-CAM++  Class specific   13.99  19.28  44.62  75.20  13.78
    Score-CAM   Class agnostic    7.09  23.65  54.20  74.91  14.68
    Score-CAM   Class specific    7.08  23.64  54.15  74.99  14.53

The exact counts are 32,526,184 and 32,590,120. In training an image starts from the token of its label, at inference
from that of the class that GAP predicts.

Hardware: 8 V100 in the paper, 32 images on each. On one H200, at the throughputs that
`castream reproduce supp-table5 --dry-run` assumes, 10.4 h of training and 12.5 h of evaluation.

    castream reproduce supp-table5 --data IMAGENET --workdir workdirs/reproduce

The reproduction trains all ablations in one run, `configs/ablations/all.py`, for the trunk is nearly all the work.
This one alone:

    castream train --config configs/ablations/class_specific.py --workdir workdirs/class-specific \\
        --config.data.path=IMAGENET
    castream evaluate --workdir workdirs/class-specific

Forms: `:small`, digits and ResNet-8, needs nothing; `:cifar10`, CIFAR-10 and the published ResNet-20.
"""

from ml_collections import ConfigDict

from castream_jax.experiment.config import Config, base_config, stream_config
from common import METHODS, ablation_rehearsal, check_form


def get_config(form: str = "") -> Config:
    check_form(form, "small", "cifar10")
    name = "Ablation: class-specific CLS"
    config = ablation_rehearsal(name, form) if form else resnet50_on_imagenet(name)
    config.streams = ConfigDict(
        {"ca": stream_config(class_specific=False), "class_specific": stream_config(class_specific=True)}
    ).lock()
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
