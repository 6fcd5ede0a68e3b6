"""What configs share: the methods of the tables, and the small forms that rehearse an experiment on small data.

`configs/imagenet/resnet50.py:small` is the form `small` of a config. Small forms run in minutes on two CPU cores. They
rehearse an experiment from end to end; their numbers are of other data and are never compared with the paper's.

`open_config` gives a config this module as `common`, from whatever folder `castream` runs in.
"""

from castream_jax.experiment import quickstart
from castream_jax.experiment.config import Config, base_config

# The attribution methods of the paper's tables, and the stream's own.
METHODS = ("gradcam", "gradcam++", "scorecam", "attention")


def check_form(form: str, *known: str) -> None:
    """Raises a ValueError if a config has no such form; the paper's own is empty."""
    if form not in ("", *known):
        raise ValueError(
            f"There is no form {form!r} of this experiment: give {' or '.join(map(repr, known))} after the colon, "
            "or no colon for the paper's."
        )


def vit_recipe(config: Config, *, warmup: int = 10, epochs: int = 100) -> Config:
    """`config` under the official code's other recipe, `ViTmodOpt` (engine/utils.py, main_INets.py).

    AdamW at 0.009, decay 0.3, a cosine over 100 epochs after 10 of warm-up, label smoothing 0.11, mixup of 0.2 or
    CutMix of 1.0 for each batch, and a moving average every 32 steps, whose decay follows batch and epochs as
    torchvision's does. Ours: the warm-up rises with every step, there with every epoch, from 0.009 of the whole.
    """
    config.name += ", the official code's other recipe"
    config.optimizer.update(name="adamw", learning_rate=9e-3, weight_decay=0.3)
    config.optimizer.update(schedule="cosine", warmup_epochs=warmup)
    config.train.update(epochs=warmup + epochs, label_smoothing=0.11, mixup=0.2, cutmix=1.0, ema_every=32)
    config.train.ema = max(1 - 2e-5 * config.train.batch_size * config.train.ema_every / config.train.epochs, 0.0)
    return config


def digits(name: str) -> Config:
    """The quickstart's experiment under all methods of the tables: bundled digits, bundled ResNet-8; a minute."""
    config = quickstart.get_config()
    config.name = f"{name} (rehearsed on digits, ResNet-8)"
    config.evaluation.methods = METHODS
    return config


def ablation_rehearsal(name: str, form: str) -> Config:
    """The form of an ablation that is not the paper's: `"small"` on digits, `"cifar10"`, or `"sample"`, photographs."""
    return {"small": digits_ablation, "cifar10": cifar10, "sample": photographs}[form](name)


def digits_ablation(name: str) -> Config:
    """`digits` with fewer images explained, at a fifth of the learning rate.

    PROJ -> CA and the later streams need it there.
    """
    config = digits(name)
    config.optimizer.learning_rate = 0.005
    config.evaluation.max_images = 120
    return config


def cifar10(name: str) -> Config:
    """CIFAR-10 as a class-per-folder tree beside the published ResNet-20, as `configs/cifar10/resnet20.py`.

    About ten minutes of training, and 1,000 images explained. The weight file is looked for beside the data.
    """
    config = base_config()
    config.name = f"{name} (rehearsed on CIFAR-10, ResNet-20)"
    config.data.update(image_size=32, resize="none", crop_padding=4)
    config.backbone.update(name="cifar_resnet20", weights="resnet20-12fca82f.th", num_classes=10)
    config.optimizer.decay_every = 3
    config.train.epochs = 9
    config.evaluation.update(batch_size=200, methods=METHODS, max_images=1000)
    return config


def photographs(name: str) -> Config:
    """A few photographs in `train/` and others in `val/`, beside EfficientNet-Lite0, which is installed.

    Of the classes in `val/` the streams may never have seen an image. They start as global average pooling, at a
    fiftieth of the paper's learning rate: from its initialisation they reach 2 % here.
    """
    config = base_config()
    config.name = f"{name} (rehearsed on photographs, EfficientNet-Lite0)"
    # The images of the published accuracy keep their proportions; squashed they lose 4 points.
    config.data.update(source="imagenet", train_split="train", test_split="val", image_size=224, resize="center_crop")
    config.data.update(random_resized_crop=True, flip=True)
    config.backbone.update(name="efficientnet_lite0", weights="imagenet1k", num_classes=1000)
    config.streams.ca.init = "gap"
    config.optimizer.update(learning_rate=0.002, schedule="cosine")
    config.train.update(epochs=12, batch_size=50, log_every=13, checkpoint_every=78)
    config.evaluation.update(batch_size=10, methods=METHODS, max_images=25, gallery=25)
    return config
