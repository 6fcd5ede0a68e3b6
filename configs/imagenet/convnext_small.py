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

Form: `:vit`, the official code's other recipe, `common.vit_recipe`.
No small ConvNeXt is published: `castream reproduce` leaves this experiment out of its small tables.
"""

from castream_jax.experiment.config import Config, base_config
from common import METHODS, check_form, vit_recipe


def get_config(form: str = "") -> Config:
    check_form(form, "vit")
    name = "ImageNet, ConvNeXt-S"
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
    config.backbone.update(name="convnext_small", weights="imagenet1k_v1", num_classes=1000)
    config.backbone.update(dtype="float32", taps="official")
    # Paper: one token for all classes, one head, from the first stage on. Linear layers with bias: official code.
    config.streams.ca.update(start_stage=0, block="ca", class_specific=False, num_heads=1, use_bias=True)
    # Paper, appendix B, for ConvNeXts as for ResNets: SGD, the learning rate divided by 10 every 30 epochs; batches
    # of 8 x 32.
    config.optimizer.update(learning_rate=0.1, momentum=0.9, weight_decay=1e-4)
    config.optimizer.update(schedule="step", decay_every=30.0, decay_factor=10.0)
    config.train.update(target="streams", loss="cross_entropy", epochs=90, batch_size=256)
    # Paper: three methods under GAP and under the stream, on all of `val`. Ours: the attention, the baseline maps and
    # the batch, which changes no number.
    config.evaluation.update(protocol="castream", methods=METHODS, max_images=0, baselines=True, batch_size=64)
    if form == "vit":
        return vit_recipe(config)
    return config
