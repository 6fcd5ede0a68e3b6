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

Form: `:small`, digits and ResNet-8, needs nothing.
"""

from castream_jax.experiment.config import Config, base_config
from common import METHODS, check_form, digits


def get_config(form: str = "") -> Config:
    check_form(form, "small")
    name = "ImageNet, ResNet-18"
    if form == "small":
        return digits(name)
    config = base_config()
    config.name = name
    # Images of 224 x 224 that lose their proportions: official code, as far as its broken line can be read.
    config.data.update(source="imagenet", train_split="train", test_split="val", image_size=224, resize="squash")
    # Training images. Crops and flips: torchvision's recipe, which the paper follows. Brightness within 1 ± 0.4:
    # official code, which squashes them before the crop, to a size that it does not give: here nothing is squashed.
    config.data.update(random_resized_crop=True, flip=True, brightness=0.4)
    config.data.num_threads = 16  # ours: of the machine assumed above; changes no number
    # Paper: pretrained and frozen, without saying by whom: torchvision's weights. Taps, the stages that
    # a stream reads: official code.
    config.backbone.update(name="resnet18", weights="imagenet1k_v1", num_classes=1000)
    config.backbone.update(dtype="float32", taps="official")
    # Paper: one token for all classes, one head, from the first stage on. Linear layers with bias: official code.
    config.streams.ca.update(start_stage=0, block="ca", class_specific=False, num_heads=1, use_bias=True)
    # Paper, appendix B: SGD, the learning rate divided by 10 every 30 epochs; batches of 8 x 32.
    config.optimizer.update(learning_rate=0.1, momentum=0.9, weight_decay=1e-4)
    config.optimizer.update(schedule="step", decay_every=30.0, decay_factor=10.0)
    config.train.update(target="streams", loss="cross_entropy", epochs=90, batch_size=256)
    # Paper: three methods under GAP and under the stream, on all of `val`. Ours: the attention, the baseline maps and
    # the batch, which changes no number.
    config.evaluation.update(protocol="castream", methods=METHODS, max_images=0, baselines=True, batch_size=64)
    return config
