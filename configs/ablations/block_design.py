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

from castream_jax.experiment.config import Config
from castream_jax.reproduce.forms import ablation, add_streams, proj_ca


def get_config(form: str = "") -> Config:
    config = ablation("Ablation: block design", form)
    config.evaluation.update(methods=("attention",), max_images=24)
    add_streams(config, proj_ca=proj_ca(form))
    return config
