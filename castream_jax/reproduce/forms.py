"""The forms that an experiment of the paper comes in beside its own: small ones, on data that is at hand.

`configs/imagenet/resnet50.py:small` is the form `small` of a config. Small forms run in minutes on two CPU cores. They
rehearse an experiment from end to end; their numbers are of other data and are never compared with the paper's.
"""

from castream_jax.experiment import quickstart
from castream_jax.experiment.config import Config, base_config, stream_config

# The attribution methods of the paper's tables, and the stream's own.
METHODS = ("gradcam", "gradcam++", "scorecam", "attention")


def check_form(form: str, *known: str) -> None:
    """Raises a ValueError if a config has no such form; the paper's own is empty."""
    if form not in ("", *known):
        raise ValueError(
            f"There is no form {form!r} of this experiment: give {' or '.join(map(repr, known))} after the colon, "
            "or no colon for the paper's."
        )


def add_streams(config: Config, **streams: Config) -> None:
    """Puts more streams beside those of `config`: they share every trunk pass, in training and in evaluation."""
    with config.streams.unlocked():
        for name, stream in streams.items():
            config.streams[name] = stream


def paper(name: str, source: str, backbone: str, *, test_split: str = "test", num_classes: int = 1000) -> Config:
    """The paper's recipe on one of its data sets, beside torchvision's weights where they have these classes.

    That of `base_config` (SGD, 90 epochs of batch 256, the rate 0.1 divided by 10 every 30; random resized crops and
    flips) and the official code's brightness jitter, within 1 ± 0.4. The official code squashes training images before
    it crops them, to a size it does not give: here they are cropped as they are.
    """
    config = base_config()
    config.name = name
    config.data.update(source=source, train_split="train", test_split=test_split, resize="squash", brightness=0.4)
    config.data.num_threads = 16
    config.backbone.update(name=backbone, num_classes=num_classes)
    if num_classes == 1000:
        config.backbone.weights = "imagenet1k_v1"
    config.evaluation.methods = METHODS
    return config


def imagenet(name: str, backbone: str = "resnet50") -> Config:
    """`paper` on ImageNet."""
    return paper(name, "imagenet", backbone, test_split="val")


def ablation(name: str, form: str) -> Config:
    """ResNet-50 on ImageNet, or `"small"` on digits, or `"cifar10"`."""
    check_form(form, "small", "cifar10")
    forms = {"": imagenet, "small": digits_ablation, "cifar10": cifar10}
    return forms[form](name)


def proj_ca(form: str) -> Config:
    """The stream of PROJ -> CA blocks; beside the small ResNet-20 it diverges at the paper's rate of 0.1."""
    return stream_config(block="proj_ca", learning_rate=0.01 if form == "cifar10" else 0.0)


def digits(name: str) -> Config:
    """The quickstart's experiment under all methods of the tables: bundled digits, bundled ResNet-8; a minute."""
    config = quickstart.get_config()
    config.name = f"{name} (rehearsed on digits, ResNet-8)"
    config.evaluation.methods = METHODS
    return config


def digits_ablation(name: str) -> Config:
    """`digits` with fewer images explained, at a fifth of the rate: PROJ -> CA and the later streams need it there.

    Even so, the stream from S2 learns little.
    """
    config = digits(name)
    config.optimizer.learning_rate = 0.005
    config.evaluation.max_images = 120
    return config


def digits_convnext(name: str, *, train_backbone: bool) -> Config:
    """A ConvNeXt-T on the bundled digits. No small one is published: it is trained first, by `train_backbone`."""
    config = digits(name)
    config.name = f"{name} (rehearsed on digits, ConvNeXt-T)"
    config.backbone.update(name="convnext_tiny", weights="")
    config.data.canvases_per_digit = 2
    config.train.update(epochs=1, batch_size=32, log_every=20)
    config.optimizer.update(learning_rate=0.02, decay_every=1)
    config.evaluation.update(batch_size=12, max_images=12, gallery=12)
    if train_backbone:
        config.name += ": backbone"
        config.train.update(target="backbone", epochs=1)
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


def imagenet_sample(config: Config) -> Config:
    """`config` on a few ImageNet images in `val/<wnid>/`, which it both trains and explains: the real backbone."""
    config.name = f"{config.name} (rehearsed on a sample)"
    config.data.update(source="imagenet", train_split="val", test_split="val")
    config.optimizer.update(learning_rate=0.01, decay_every=2)
    config.train.update(epochs=3, batch_size=40, log_every=5, checkpoint_every=10)
    config.evaluation.update(batch_size=4, max_images=2, gallery=2)
    return config
