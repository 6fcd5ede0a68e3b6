"""Frozen trunks: torchvision's ResNets, ConvNeXts and EfficientNets, CIFAR ResNets, and PyTorch weights for them."""

from castream_jax.backbones import cifar_resnet, convnext, efficientnet, resnet  # importing registers their names
from castream_jax.backbones.backbone import Backbone, Taps
from castream_jax.backbones.load import (
    OtherClassesError,
    fingerprint,
    load_backbone,
    load_torch_state_dict,
    save_torch_weights,
    torch_state_dict,
)
from castream_jax.backbones.registry import (
    Architecture,
    backbone_names,
    create_backbone,
    get_architecture,
    register_backbone,
)

__all__ = [
    "Architecture",
    "Backbone",
    "OtherClassesError",
    "Taps",
    "backbone_names",
    "cifar_resnet",
    "convnext",
    "create_backbone",
    "efficientnet",
    "fingerprint",
    "get_architecture",
    "load_backbone",
    "load_torch_state_dict",
    "register_backbone",
    "resnet",
    "save_torch_weights",
    "torch_state_dict",
]
