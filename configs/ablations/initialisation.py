"""Where does it help that a stream starts as GAP? (ours; the paper has one initialisation)

Three streams, each from the paper's initialisation and from `init="gap"`, in one run: the whole one (S0), a late one
(S2) and PROJ -> CA. Expected: docs/results.md, "A stream that starts as GAP".

CIFAR-10 beside the published ResNet-20, about fifteen minutes of training on two CPU cores, DATA being the folder that
holds `train/`, `test/` and `resnet20-12fca82f.th`:

    castream train --config configs/ablations/initialisation.py --workdir workdirs/initialisation \\
        --config.data.path=DATA --config.backbone.weights=DATA/resnet20-12fca82f.th
    castream evaluate --workdir workdirs/initialisation

Form `:small`: digits and ResNet-8, needs nothing; a few minutes.
"""

from ml_collections import ConfigDict

from castream_jax.experiment.config import Config, base_config, stream_config
from common import ablation_rehearsal, check_form


def get_config(form: str = "cifar10") -> Config:
    check_form(form, "small", "cifar10")
    name = "Ablation: initialisation"
    config = ablation_rehearsal(name, form) if form == "small" else resnet20_on_cifar10(name)
    # From the paper's initialisation, PROJ -> CA diverges at CIFAR-10's learning rate of 0.1.
    slow = 0.01 if form == "cifar10" else 0.0
    config.streams = ConfigDict(
        {
            "s0": stream_config(),
            "s0_gap": stream_config(init="gap"),
            "s2": stream_config(start_stage=2),
            "s2_gap": stream_config(start_stage=2, init="gap"),
            "proj_ca": stream_config(block="proj_ca", learning_rate=slow),
            "proj_ca_gap": stream_config(block="proj_ca", init="gap", learning_rate=slow),
        }
    ).lock()
    return config


def resnet20_on_cifar10(name: str) -> Config:
    config = base_config()
    config.name = f"{name} (CIFAR-10, ResNet-20)"
    # The recipe of `configs/cifar10/resnet20.py`, where the source of each value is said.
    config.data.update(source="image_folder", train_split="train", test_split="test", image_size=32, resize="none")
    config.data.update(flip=True, crop_padding=4)
    config.backbone.update(name="cifar_resnet20", weights="", num_classes=10, dtype="float32")
    config.optimizer.update(learning_rate=0.1, momentum=0.9, weight_decay=1e-4)
    config.optimizer.update(schedule="step", decay_every=3.0, decay_factor=10.0)
    config.train.update(target="streams", loss="cross_entropy", epochs=9, batch_size=256)
    config.evaluation.update(protocol="castream", methods=("gradcam", "attention"), max_images=1000)
    config.evaluation.batch_size = 200
    return config
