"""ConvNeXt-S, ImageNet: a CA-Stream beside torchvision's frozen weights (supplementary, table 1).

Paper: CA-Stream (Torres et al., XAI4CV 2024), supplementary, table 1 and appendix B.
Expected, in percent (AD, AG, AI, I, D; no accuracy is printed):

    Grad-CAM    GAP              42.99   1.69  12.60  48.42  30.12
    Grad-CAM    CA               22.09  14.91  32.65  84.82  43.02
    Grad-CAM++  GAP              56.42   1.32  10.35  48.28  33.41
    Grad-CAM++  CA               51.87   9.40  20.55  84.28  52.58
    Score-CAM   GAP              74.79   1.29  10.10  47.40  38.21
    Score-CAM   CA               64.21   8.81  18.96  82.92  57.46

Hardware: 8 V100 in the paper, 32 images on each. On one H200, at the throughputs that
`castream reproduce supp-table1 --dry-run` assumes, 22.4 h of training and 12.8 h of evaluation.

    castream reproduce supp-table1 --data IMAGENET --workdir workdirs/reproduce

or this experiment alone, IMAGENET being the folder that holds `train/` and `val/`:

    castream train --config configs/imagenet/convnext_small.py --workdir workdirs/convnext_small \\
        --config.data.path=IMAGENET
    castream evaluate --workdir workdirs/convnext_small

Forms: `:small`, digits and a ConvNeXt-T that `:small-backbone` trains first, needs nothing; `:sample`, a few ImageNet
images in `val/`.
"""

from castream_jax.experiment.config import Config
from castream_jax.reproduce.forms import check_form, digits_convnext, imagenet, imagenet_sample


def get_config(form: str = "") -> Config:
    check_form(form, "small", "small-backbone", "sample")
    name = "ImageNet, ConvNeXt-S"
    if form.startswith("small"):
        return digits_convnext(name, train_backbone=form == "small-backbone")
    config = imagenet(name, "convnext_small")
    return imagenet_sample(config) if form == "sample" else config
