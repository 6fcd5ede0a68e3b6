"""Names of torchvision's ImageNet weights: architecture -> entry -> public file name.

A file name ends in the first 8 hexadecimal digits of the file's SHA-256. This holds for every file below, the first
versions (V1) included: torchvision itself refuses a file that fails it. Most of its EfficientNets were
published twice, at first under digits that did not match; below are the names that do.
"""

# Where the files are published. The environment variable CASTREAM_WEIGHTS_URL names a mirror.
WEIGHTS_URL = "https://download.pytorch.org/models/"

PUBLISHED_WEIGHTS: dict[str, dict[str, str]] = {
    "resnet18": {"imagenet1k_v1": "resnet18-f37072fd.pth"},
    "resnet34": {"imagenet1k_v1": "resnet34-b627a593.pth"},
    "resnet50": {"imagenet1k_v1": "resnet50-0676ba61.pth", "imagenet1k_v2": "resnet50-11ad3fa6.pth"},
    "resnet101": {"imagenet1k_v1": "resnet101-63fe2227.pth", "imagenet1k_v2": "resnet101-cd907fc2.pth"},
    "resnet152": {"imagenet1k_v1": "resnet152-394f9c45.pth", "imagenet1k_v2": "resnet152-f82ba261.pth"},
    "resnext50_32x4d": {
        "imagenet1k_v1": "resnext50_32x4d-7cdf4587.pth",
        "imagenet1k_v2": "resnext50_32x4d-1a0047aa.pth",
    },
    "resnext101_32x8d": {
        "imagenet1k_v1": "resnext101_32x8d-8ba56ff5.pth",
        "imagenet1k_v2": "resnext101_32x8d-110c445d.pth",
    },
    "wide_resnet50_2": {
        "imagenet1k_v1": "wide_resnet50_2-95faca4d.pth",
        "imagenet1k_v2": "wide_resnet50_2-9ba9bcbe.pth",
    },
    "wide_resnet101_2": {
        "imagenet1k_v1": "wide_resnet101_2-32ee1156.pth",
        "imagenet1k_v2": "wide_resnet101_2-d733dc28.pth",
    },
    "convnext_tiny": {"imagenet1k_v1": "convnext_tiny-983f1562.pth"},
    "convnext_small": {"imagenet1k_v1": "convnext_small-0c510722.pth"},
    "convnext_base": {"imagenet1k_v1": "convnext_base-6075fbad.pth"},
    "convnext_large": {"imagenet1k_v1": "convnext_large-ea097f82.pth"},
    "efficientnet_b0": {"imagenet1k_v1": "efficientnet_b0_rwightman-7f5810bc.pth"},
    "efficientnet_b1": {
        "imagenet1k_v1": "efficientnet_b1_rwightman-bac287d4.pth",
        "imagenet1k_v2": "efficientnet_b1-c27df63c.pth",
    },
    "efficientnet_b2": {"imagenet1k_v1": "efficientnet_b2_rwightman-c35c1473.pth"},
    "efficientnet_b3": {"imagenet1k_v1": "efficientnet_b3_rwightman-b3899882.pth"},
    "efficientnet_b4": {"imagenet1k_v1": "efficientnet_b4_rwightman-23ab8bcd.pth"},
    "efficientnet_b5": {"imagenet1k_v1": "efficientnet_b5_lukemelas-1a07897c.pth"},
    "efficientnet_b6": {"imagenet1k_v1": "efficientnet_b6_lukemelas-24a108a5.pth"},
    "efficientnet_b7": {"imagenet1k_v1": "efficientnet_b7_lukemelas-c5b4e57e.pth"},
}

# Weights that ship with the package: name -> (backbone, file). See configs/digits/pretrain.py for how they came about.
BUNDLED_WEIGHTS = {"digits": ("cifar_resnet8", "digits_cifar_resnet8.safetensors")}
