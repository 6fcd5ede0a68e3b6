"""ResNet-50, MIT-67 indoor scenes: raw attention on classes that ImageNet does not have (figure 3 of the poster).

Paper: CA-Stream (Torres et al., XAI4CV 2024), appendix C (figure 4 of the paper with its appendix). No numbers are
expected: rooms of four scenes (corridor, greenhouse, pool inside, wine cellar), each beside the attention of the stream
trained on ImageNet. Nothing is trained here, so this is no experiment to run by itself: it says which images
`castream reproduce fig3` shows, and which network looks at them.

Hardware: any; seconds, once the stream of `configs/imagenet/resnet50.py` is there.

    castream reproduce fig3 --data DATA --workdir workdirs/reproduce

DATA holds `indoor67/`, the folder of `Images/` and `TestImages.txt`. Forms: `:small`, digits that the small stream has
not seen.
"""

from castream_jax.experiment.config import Config, base_config
from common import check_form, digits


def get_config(form: str = "") -> Config:
    check_form(form, "small")
    name = "MIT-67, ResNet-50"
    if form == "small":
        config = digits(name)
        config.data.seed = 1
    else:
        config = base_config()
        config.name = name
        # Images and network as in `configs/imagenet/resnet50.py`, whose stream looks at them.
        config.data.update(source="indoor67", train_split="train", test_split="test", image_size=224, resize="squash")
        config.data.num_threads = 16
        config.backbone.update(name="resnet50", weights="imagenet1k_v1", num_classes=1000, dtype="float32")
    config.evaluation.methods = ("attention",)
    return config
