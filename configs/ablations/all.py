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

Forms: `:small`, digits and ResNet-8, needs nothing; `:cifar10`, CIFAR-10 and the published ResNet-20.
Their last stage is S3: in the place of S4–S4 they train a stream of four attention heads.
"""

from castream_jax.experiment.config import Config, stream_config
from castream_jax.reproduce.forms import ablation, add_streams, proj_ca


def get_config(form: str = "") -> Config:
    config = ablation("Ablations, ResNet-50", form)
    add_streams(
        config,
        proj_ca=proj_ca(form),
        class_specific=stream_config(class_specific=True),
    )
    last = 3 if form else 4  # the small trunks have one stage less
    stages = range(1, last + 1)
    add_streams(config, **{f"from_s{stage}": stream_config(start_stage=stage) for stage in stages})
    if form:
        add_streams(config, four_heads=stream_config(num_heads=4))  # in the place of S4
    return config
