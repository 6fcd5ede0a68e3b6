"""ConvNeXt-B, ImageNet: a CA-Stream beside torchvision's frozen weights (table 1).

Paper: CA-Stream (Torres et al., XAI4CV 2024), table 1 and appendix B.
Expected, in percent (Accuracy, then AD, AG, AI, I, D):

    Accuracy    GAP              83.72
    Accuracy    CA               83.51
    Grad-CAM    GAP              33.72   2.43  15.25  52.85  29.57
    Grad-CAM    CA               19.45  13.96  32.89  86.38  45.29
    Grad-CAM++  GAP              34.01   2.37  15.60  52.83  29.17
    Grad-CAM++  CA               36.69   8.00  21.95  85.39  53.42
    Score-CAM   GAP              43.55   2.23  15.67  50.96  39.49
    Score-CAM   CA               23.51  11.04  27.35  83.41  60.53

Hardware: 8 V100 in the paper, 32 images on each. On one H200, at the throughputs that
`castream reproduce table1 --dry-run` assumes, 39.6 h of training and 27.0 h of evaluation.

    castream reproduce table1 --data IMAGENET --workdir workdirs/reproduce

or this experiment alone, IMAGENET being the folder that holds `train/` and `val/`:

    castream train --config configs/imagenet/convnext_base.py --workdir workdirs/convnext_base \\
        --config.data.path=IMAGENET
    castream evaluate --workdir workdirs/convnext_base

Forms: `:small`, digits and a ConvNeXt-T that `:small-backbone` trains first, needs nothing; `:sample`, a few ImageNet
images in `val/`.
"""

from castream_jax.experiment.config import Config
from castream_jax.reproduce.forms import check_form, digits_convnext, imagenet, imagenet_sample


def get_config(form: str = "") -> Config:
    check_form(form, "small", "small-backbone", "sample")
    name = "ImageNet, ConvNeXt-B"
    if form.startswith("small"):
        return digits_convnext(name, train_backbone=form == "small-backbone")
    config = imagenet(name, "convnext_base")
    return imagenet_sample(config) if form == "sample" else config
