"""ResNet-50, Pascal VOC 2012: a CA-Stream beside a backbone fine-tuned on several labels (supplementary, table 2).

Paper: CA-Stream (Torres et al., XAI4CV 2024), supplementary, table 2 and appendices B and D.
Expected, in percent (mAP, then AD, AG, AI, I, D):

    mAP         GAP              78.32
    mAP         CA               78.35
    Grad-CAM    GAP              12.61   9.68  27.88  89.10  59.39
    Grad-CAM    CA               12.77  15.46  34.53  88.53  59.16
    Grad-CAM++  GAP              12.25   9.68  27.62  89.34  54.23
    Grad-CAM++  CA               12.28  16.76  34.87  89.02  53.34
    Score-CAM   GAP               14.8   6.76  36.41  71.10  39.95
    Score-CAM   CA               10.96  21.35  43.82  89.21  51.44

Score-CAM's rows are legible in one of two renderings only, see `tests/reproduce/disagreements.json`.

Hardware: 8 V100 in the paper, 32 images on each. On one H200, at the throughputs that
`castream reproduce supp-table2 --dry-run` assumes, 0.02 h of fine-tuning, 0.01 h of training and 2.0 h of
evaluation, of one explanation per image and class that it shows.

    castream reproduce supp-table2 --data DATA --workdir workdirs/reproduce

or step by step, DATA being the folder that holds `VOCdevkit/VOC2012/`:

    castream train --config configs/voc/resnet50.py:backbone --workdir workdirs/voc-backbone --config.data.path=DATA
    castream train --config configs/voc/resnet50.py --workdir workdirs/voc --config.data.path=DATA \\
        --config.backbone.weights=workdirs/voc-backbone/export/backbone.safetensors
    castream evaluate --workdir workdirs/voc

The paper does not say which split it trained on: here `train`, with `val` for testing. The recipe is that of the
official code, binary cross entropy under a cosine from 1e-4 for 12 epochs, for the backbone and for the stream. Forms:
`:backbone`; `:small`, digits and ResNet-8 (one label per image), needs nothing.
"""

from castream_jax.experiment.config import Config, base_config
from common import METHODS, check_form, digits


def get_config(form: str = "") -> Config:
    check_form(form, "backbone", "small")
    name = "Pascal VOC 2012, ResNet-50"
    if form == "small":
        return digits(name)
    config = base_config()
    config.name = name
    # As in `configs/imagenet/resnet50.py`: official code (squash, brightness), torchvision's recipe (crop, flip).
    config.data.update(source="voc", train_split="train", test_split="val", image_size=224, resize="squash")
    config.data.update(random_resized_crop=True, flip=True, brightness=0.4)
    config.data.difficult = "ignore"  # ours: objects marked difficult count for nothing
    config.data.num_threads = 16  # ours: of the machine assumed above; changes no number
    # Its weights are those that `:backbone` leaves: --config.backbone.weights=….
    config.backbone.update(name="resnet50", weights="", num_classes=20)
    config.backbone.update(dtype="float32", taps="official")
    config.streams.ca.update(start_stage=0, block="ca", class_specific=False, num_heads=1, use_bias=True)
    # Official code: SGD by a cosine to 0 without weight decay, and a loss for several labels per image.
    config.optimizer.update(learning_rate=1e-4, momentum=0.9, weight_decay=0.0, schedule="cosine")
    config.train.update(target="streams", loss="binary_cross_entropy", epochs=12, batch_size=256)
    # Paper: three methods; on every pair of an image and a class. Ours: the attention, the baseline maps and the batch.
    config.evaluation.update(protocol="castream", methods=METHODS, max_images=0, baselines=True, batch_size=64)
    if form == "backbone":  # the same recipe; ours: where it starts
        config.name += ": backbone"
        config.backbone.update(weights="imagenet1k_v1", new_classifier=True)
        config.train.update(target="backbone", batch_norm="train")
    return config
