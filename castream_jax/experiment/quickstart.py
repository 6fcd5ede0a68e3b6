"""The quickstart's experiment: a CA-Stream beside a small frozen ResNet that reads handwritten digits amid clutter.

Everything is in the package: scikit-learn's digits, drawn on 64 x 64 colour canvases, and the weights of the backbone,
which `configs/digits/pretrain.py` reproduces. The recipe is the paper's in short: SGD with momentum, the learning rate
divided by 10 twice.
"""

from castream_jax.experiment.config import Config, base_config


def get_config() -> Config:
    """Four epochs of 7,190 canvases (each of 1,438 training digits five times), evaluated on the 359 test digits."""
    config = base_config()
    config.name = "Handwritten digits, quickstart"
    config.data.update(source="digits", image_size=64, resize="none", flip=False, canvases_per_digit=5)
    config.backbone.update(name="cifar_resnet8", weights="digits", num_classes=10)
    config.streams.ca.update(start_stage=0, block="ca", class_specific=False, num_heads=1, use_bias=True)
    config.optimizer.update(learning_rate=0.025, momentum=0.9, weight_decay=1e-4)  # the paper's 0.1 per 256 images
    config.optimizer.update(schedule="step", decay_every=2.0, decay_factor=10.0)
    config.train.update(target="streams", loss="cross_entropy", epochs=4, batch_size=64)
    config.train.update(log_every=40, checkpoint_every=200)
    config.evaluation.update(protocol="castream", methods=("gradcam", "attention"), max_images=0, batch_size=60)
    return config
