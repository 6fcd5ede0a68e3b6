"""Ablation, ResNet-50, ImageNet: streams that start at S0, S1, … S4 (supplementary, table 4).

Paper: CA-Stream (Torres et al., XAI4CV 2024), supplementary, table 4.
Expected, in percent (Accuracy and parameters of the stream, then AD, AG, AI, I, D):

    Accuracy    S0–S4            74.70  6.96M
    Accuracy    S1–S4            74.67  6.95M
    Accuracy    S2–S4            74.67  6.82M
    Accuracy    S3–S4            74.67  6.29M
    Accuracy    S4–S4            74.63  4.20M
    Grad-CAM    S0–S4            12.54  22.67  48.56  75.53  13.50
    Grad-CAM    S1–S4            12.69  22.65  48.31  75.53  13.41
    Grad-CAM    S2–S4            12.54  21.67  48.58  75.54  13.50
    Grad-CAM    S3–S4            12.69  22.28  47.89  75.55  13.40
    Grad-CAM    S4–S4            12.77  20.65  47.14  74.32  13.37
    Grad-CAM++  S0–S4            13.99  19.29  44.60  75.21  13.78
    Grad-CAM++  S1–S4            13.99  19.29  44.62  75.21  13.78
    Grad-CAM++  S2–S4            13.71  19.90  45.43  75.34  13.50
    Grad-CAM++  S3–S4            13.69  19.61  45.04  75.36  13.50
    Grad-CAM++  S4–S4            13.67  18.36  44.40  74.19  13.30
    Score-CAM   S0–S4             7.09  23.65  54.20  74.91  14.68
    Score-CAM   S1–S4             7.09  23.65  54.20  74.92  14.68
    Score-CAM   S2–S4             7.09  23.66  54.21  74.91  14.68
    Score-CAM   S3–S4             7.74  23.03  52.92  74.97  14.65
    Score-CAM   S4–S4             7.52  19.45  50.45  74.19  14.46

The exact counts are 6,969,152, 6,952,704, 6,821,376, 6,296,576 and 4,198,400.

Hardware: 8 V100 in the paper, 32 images on each. On one H200, at the throughputs that
`castream reproduce supp-table4 --dry-run` assumes, 10.6 h of training and 15.6 h of evaluation.

    castream reproduce supp-table4 --data IMAGENET --workdir workdirs/reproduce

The reproduction trains all ablations in one run, `configs/ablations/all.py`, for the trunk is nearly all the work.
This one alone:

    castream train --config configs/ablations/placement.py --workdir workdirs/placement \\
        --config.data.path=IMAGENET
    castream evaluate --workdir workdirs/placement

Forms: `:small`, digits and ResNet-8, needs nothing; `:cifar10`, CIFAR-10 and the published ResNet-20.
Their last stage is S3, so there is no S4–S4.
"""

from ml_collections import ConfigDict

from castream_jax.experiment.config import Config, base_config, stream_config
from common import METHODS, ablation_rehearsal, check_form


def get_config(form: str = "") -> Config:
    check_form(form, "small", "cifar10")
    name = "Ablation: placement"
    config = ablation_rehearsal(name, form) if form else resnet50_on_imagenet(name)
    last = 3 if form else 4  # the small trunks have one stage less
    late = {f"from_s{stage}": stream_config(start_stage=stage) for stage in range(1, last + 1)}
    if form == "small":  # from the paper's initialisation it guesses after four epochs
        late["from_s2"].init = "gap"
    config.streams = ConfigDict({"ca": stream_config(start_stage=0), **late}).lock()
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
