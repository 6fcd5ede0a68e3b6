"""ResNet-18, ImageNet: a CA-Stream beside torchvision's frozen weights (supplementary, table 1).

Paper: CA-Stream (Torres et al., XAI4CV 2024), supplementary, table 1 and appendix B.
Expected, in percent (AD, AG, AI, I, D; no accuracy is printed):

    Grad-CAM    GAP              17.64  12.73  41.21  63.13  10.66
    Grad-CAM    CA               16.99  17.22  44.95  65.94  10.68
    Grad-CAM++  GAP              19.05  11.16  37.99  62.80  10.75
    Grad-CAM++  CA               19.02  14.76  40.82  65.53  10.82
    Score-CAM   GAP              13.64  12.98  44.53  62.56  11.37
    Score-CAM   CA               11.53  18.12  50.32  65.33  11.51

Hardware: 8 V100 in the paper, 32 images on each. On one H200, at the throughputs that
`castream reproduce supp-table1 --dry-run` assumes, 5.3 h of training and 2.0 h of evaluation.

    castream reproduce supp-table1 --data IMAGENET --workdir workdirs/reproduce

or this experiment alone, IMAGENET being the folder that holds `train/` and `val/`:

    castream train --config configs/imagenet/resnet18.py --workdir workdirs/resnet18 \\
        --config.data.path=IMAGENET
    castream evaluate --workdir workdirs/resnet18

Forms: `:small`, digits and ResNet-8, needs nothing; `:sample`, a few ImageNet images in `val/`.
"""

from castream_jax.experiment.config import Config
from castream_jax.reproduce.forms import check_form, digits, imagenet, imagenet_sample


def get_config(form: str = "") -> Config:
    check_form(form, "small", "sample")
    name = "ImageNet, ResNet-18"
    if form == "small":
        return digits(name)
    config = imagenet(name, "resnet18")
    return imagenet_sample(config) if form == "sample" else config
