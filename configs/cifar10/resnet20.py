"""A CA-Stream beside the published CIFAR-10 ResNet-20, on a class-per-folder tree of images.

The data is a folder with `train/<class>/*` and `test/<class>/*`, the weights the published `resnet20-12fca82f.th`
(He et al., option A shortcuts):

    castream train --config configs/cifar10/resnet20.py --workdir workdirs/cifar10 \\
        --config.data.path=DATA --config.backbone.weights=resnet20-12fca82f.th
    castream evaluate --config … --workdir workdirs/cifar10 (the same fields), then castream report --workdir …

9 epochs of the paper's recipe in short: batch 256, learning rate 0.1 divided by 10 every 3 epochs, flips and shifts of
4 pixels.
Form `:vit`: 9 epochs of the official code's other recipe in short, `common.vit_recipe`, one of them for its warm-up.
Measured results are in docs/results.md.
"""

from castream_jax.experiment.config import Config, base_config
from common import check_form, vit_recipe


def get_config(form: str = "") -> Config:
    check_form(form, "vit")
    config = base_config()
    config.name = "CIFAR-10, ResNet-20"
    # The augmentation that the published weights were trained with (He et al., section 4.2).
    config.data.update(source="image_folder", train_split="train", test_split="test", image_size=32, resize="none")
    config.data.update(flip=True, crop_padding=4)
    # Weights: --config.backbone.weights=resnet20-12fca82f.th
    config.backbone.update(name="cifar_resnet20", weights="", num_classes=10, dtype="float32")
    config.streams.ca.update(start_stage=0, block="ca", class_specific=False, num_heads=1, use_bias=True)
    # The paper's optimiser and batch; ours: a tenth of its epochs.
    config.optimizer.update(learning_rate=0.1, momentum=0.9, weight_decay=1e-4)
    config.optimizer.update(schedule="step", decay_every=3.0, decay_factor=10.0)
    config.train.update(target="streams", loss="cross_entropy", epochs=9, batch_size=256)
    config.evaluation.update(protocol="castream", methods=("gradcam", "attention"), max_images=0, batch_size=200)
    return vit_recipe(config, warmup=1, epochs=8) if form == "vit" else config
