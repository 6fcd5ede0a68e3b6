"""Frozen trunks: torchvision's ResNets, ConvNeXts and EfficientNets, CIFAR ResNets, and PyTorch weights for them."""

from castream_jax.backbones import (  # importing registers their names
    cifar_resnet,
    convnext,
    efficientnet,
    efficientnet_lite,
    resnet,
)
from castream_jax.backbones.backbone import Backbone, Taps
from castream_jax.backbones.imported import ImportedBackbone
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
    abstract_backbone,
    backbone_names,
    create_backbone,
    get_architecture,
    register_backbone,
)
from castream_jax.backbones.saved import save_backbone

__all__ = [
    "Architecture",
    "Backbone",
    "ImportedBackbone",
    "OtherClassesError",
    "Taps",
    "abstract_backbone",
    "backbone_names",
    "cifar_resnet",
    "convnext",
    "create_backbone",
    "efficientnet",
    "efficientnet_lite",
    "fingerprint",
    "get_architecture",
    "load_backbone",
    "load_torch_state_dict",
    "register_backbone",
    "resnet",
    "save_backbone",
    "save_torch_weights",
    "torch_state_dict",
]
