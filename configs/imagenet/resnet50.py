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

Forms: `:small`, digits and ResNet-8, needs nothing; `:sample`, a few photographs in `train/` and others in `val/`, and
EfficientNet-Lite0, which is installed.
"""

from castream_jax.experiment.config import Config, base_config
from common import METHODS, check_form, digits, photographs


def get_config(form: str = "") -> Config:
    check_form(form, "small", "sample")
    name = "ImageNet, ResNet-50"
    if form:
        return {"small": digits, "sample": photographs}[form](name)
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
    config.backbone.update(name="resnet50", weights="imagenet1k_v1", num_classes=1000)
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
