"""ResNet-50, ImageNet: a CA-Stream beside torchvision's frozen weights (table 1).

Paper: CA-Stream (Torres et al., XAI4CV 2024), table 1 and appendix B.
Expected, in percent (Accuracy, then AD, AG, AI, I, D):

    Accuracy    GAP              74.55
    Accuracy    CA               74.70
    Grad-CAM    GAP              13.04  17.56  44.47  72.57  13.24
    Grad-CAM    CA               12.54  22.67  48.56  75.53  13.50
    Grad-CAM++  GAP              13.79  15.87  42.08  72.32  13.33
    Grad-CAM++  CA               13.99  19.29  44.60  75.21  13.78
    Score-CAM   GAP               8.83  17.97  48.46  71.99  14.31
    Score-CAM   CA                7.09  23.65  54.20  74.91  14.68

Hardware: 8 V100 in the paper, 32 images on each. On one H200, at the throughputs that
`castream reproduce table1 --dry-run` assumes, 10.3 h of training and 11.5 h of evaluation.

    castream reproduce table1 --data IMAGENET --workdir workdirs/reproduce

or this experiment alone, IMAGENET being the folder that holds `train/` and `val/`:

    castream train --config configs/imagenet/resnet50.py --workdir workdirs/resnet50 \\
        --config.data.path=IMAGENET
    castream evaluate --workdir workdirs/resnet50

Forms: `:small`, digits and ResNet-8, needs nothing; `:sample`, a few ImageNet images in `val/`.
"""

from castream_jax.experiment.config import Config
from castream_jax.reproduce.forms import check_form, digits, imagenet, imagenet_sample


def get_config(form: str = "") -> Config:
    check_form(form, "small", "sample")
    name = "ImageNet, ResNet-50"
    if form == "small":
        return digits(name)
    config = imagenet(name, "resnet50")
    return imagenet_sample(config) if form == "sample" else config
