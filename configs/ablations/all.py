"""All ablations of ResNet-50 on ImageNet in one run: seven streams, one trunk pass (supplementary, tables 3 to 5).

Paper: CA-Stream (Torres et al., XAI4CV 2024), supplementary, tables 3 to 5.
Expected: the numbers in `block_design.py`, `placement.py` and `class_specific.py`; the stream from S0 is that of
table 1, too. Each stream trains as it would alone: the losses add, and no two streams share a parameter.

Hardware: 8 V100 in the paper, 32 images on each. On one H200, at the throughputs that
`castream reproduce supp-table4 --dry-run` assumes, 10.9 h of training and 17.7 h of evaluation.

    castream reproduce supp-table4 --data IMAGENET --workdir workdirs/reproduce

or this experiment alone, IMAGENET being the folder that holds `train/` and `val/`:

    castream train --config configs/ablations/all.py --workdir workdirs/all \\
        --config.data.path=IMAGENET
    castream evaluate --workdir workdirs/all

Forms: `:small`, digits and ResNet-8, needs nothing; `:cifar10`, CIFAR-10 and the published ResNet-20; `:sample`, a few
photographs in `train/` and others in `val/`, and EfficientNet-Lite0, which is installed. The last stage of the first
two is S3, and instead of S4–S4 they train a stream of four attention heads; that of the third is S5.
"""

from ml_collections import ConfigDict

from castream_jax.experiment.config import Config, base_config, stream_config
from common import METHODS, ablation_rehearsal, check_form


def get_config(form: str = "") -> Config:
    check_form(form, "small", "cifar10", "sample")
    name = "Ablations, ResNet-50"
    config = ablation_rehearsal(name, form) if form else resnet50_on_imagenet(name)
    # One entry for each row of the tables; a field that is not given is that of table 1's stream, "ca".
    streams = {
        "ca": stream_config(start_stage=0, block="ca", class_specific=False, num_heads=1, use_bias=True),
        # Ours: beside the small ResNet-20 it diverges at the paper's learning rate of 0.1.
        "proj_ca": stream_config(block="proj_ca", learning_rate=0.01 if form == "cifar10" else 0.0),
        "class_specific": stream_config(class_specific=True),
        "from_s1": stream_config(start_stage=1),
        # Ours: beside the small ResNet-8 it guesses after four epochs from the paper's initialisation.
        "from_s2": stream_config(start_stage=2, init="gap" if form == "small" else "paper"),
        "from_s3": stream_config(start_stage=3),
    }
    if form in ("small", "cifar10"):  # their trunks end at S3
        streams["four_heads"] = stream_config(num_heads=4)
    else:
        streams["from_s4"] = stream_config(start_stage=4)
    if form == "sample":  # from the paper's initialisation a stream learns nothing of so few images
        for stream in streams.values():
            stream.init = "gap"
    config.streams = ConfigDict(streams).lock()
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
