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

Form: `:vit`, the official code's other recipe, `common.vit_recipe`.
No small ConvNeXt is published: `castream reproduce` leaves this experiment out of its small tables.
"""

from castream_jax.experiment.config import Config, base_config
from common import METHODS, check_form, vit_recipe


def get_config(form: str = "") -> Config:
    check_form(form, "vit")
    name = "ImageNet, ConvNeXt-B"
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
    config.backbone.update(name="convnext_base", weights="imagenet1k_v1", num_classes=1000)
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
