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

from castream_jax.config import Config, base_config
from castream_jax.reproduce.forms import METHODS, check_form, digits, imagenet_sample


def get_config(form: str = "") -> Config:
    check_form(form, "small", "sample")
    name = "ImageNet, ResNet-18"
    if form == "small":
        return digits(name)
    # The recipe is base_config's: SGD, 90 epochs of batch 256, the rate 0.1 divided by 10 every 30.
    config = base_config()
    config.name = name
    config.data.update(source="imagenet", train_split="train", test_split="val", resize="squash", num_threads=16)
    config.backbone.update(name="resnet18", weights="imagenet1k_v1")
    config.evaluation.methods = METHODS
    return imagenet_sample(config) if form == "sample" else config
