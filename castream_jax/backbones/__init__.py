"""Frozen trunks: ImageNet and CIFAR ResNets, and PyTorch weights for them."""

from castream_jax.backbones import cifar_resnet, resnet  # importing them registers their names
from castream_jax.backbones.backbone import Backbone
from castream_jax.backbones.download import fetch_weights
from castream_jax.backbones.registry import backbone_names, create_backbone, register_backbone
from castream_jax.backbones.weights import (
    fingerprint,
    load_backbone,
    load_torch_state_dict,
    read_weights,
    save_torch_weights,
    torch_state_dict,
)

__all__ = [
    "Backbone",
    "backbone_names",
    "cifar_resnet",
    "create_backbone",
    "fetch_weights",
    "fingerprint",
    "load_backbone",
    "load_torch_state_dict",
    "read_weights",
    "register_backbone",
    "resnet",
    "save_torch_weights",
    "torch_state_dict",
]
