"""What a file of weights that does not fit seems to be, told by the names in it."""

from collections.abc import Iterable
import re

# The first whose pattern fits a name, at its beginning or after a dot: particular ones first.
_SIGNS = tuple(
    (re.compile(rf"(?:^|\.){pattern}"), guess)
    for pattern, guess in (
        (r"(optimizer|param_groups|exp_avg|momentum_buffer)\b", "a training checkpoint with the state of an optimizer"),
        (r"(backbone\.body\.|rpn\.|roi_heads\.|bottom_up\.)", "a detection model, whose trunk is only a part of it"),
        (r"(aux_classifier\.|decode_head\.)", "a segmentation model, whose trunk is only a part of it"),
        (r"(encoder_q|encoder_k|teacher|student)\.", "self-supervised training, whose trunk is only a part of it"),
        (r"visual\.(transformer|layer\d|conv1|attnpool)", "CLIP, whose trunk is only a part of it"),
        (r"(cls_stream\.|l\d\.to_out\.|base\.to_out\.)", "a CA-Stream, which has no backbone in it"),
        (r"encoder\.layers\.encoder_layer_\d", "torchvision's names for a vision transformer"),
        (r"encoder\.layer\.\d+\.attention\.attention", "Hugging Face's names for a vision transformer"),
        (r"relative_position_bias_table", "a Swin transformer"),
        (r"blocks\.\d+\.attn\.qkv", "timm's names for a vision transformer"),
        (
            r"convnext(v2)?\.(embeddings|encoder)|stages\.\d+\.layers\.\d+\.dwconv",
            "Hugging Face's names for a ConvNeXt",
        ),
        (r"encoder\.stages\.\d+\.layers\.\d+\.|embedder\.embedder\.", "Hugging Face's names for a ResNet"),
        (r"stages\.\d+\.blocks\.\d+\.(conv_dw|mlp)", "timm's names for a ConvNeXt"),
        (r"downsample_layers\.\d+\.", "the names of the ConvNeXt authors"),
        (r"_conv_stem\.|_blocks\.\d+\._", "efficientnet_pytorch's names for an EfficientNet"),
        (r"conv_stem\.|blocks\.\d+\.\d+\.(conv_pw|conv_dw|se)", "timm's names for an EfficientNet or a MobileNet"),
        (r"features\.denseblock\d", "torchvision's names for a DenseNet"),
        (r"features\.\d+\.\d+\.layer_scale", "torchvision's names for a ConvNeXt"),
        (r"features\.\d+\.\d+\.block\.\d+\.\d", "torchvision's names for an EfficientNet"),
        (r"features\.\d+\.conv\.", "torchvision's names for a MobileNet"),
        (r"features\.\d+\.(weight|bias)$", "torchvision's names for a VGG network or an AlexNet"),
        (r"(Conv2d_|Mixed_)\d", "torchvision's names for an Inception network"),
        (r"layer4\.\d+\.conv3\.", "torchvision's names for a ResNet with bottleneck blocks, such as resnet50"),
        (r"layer4\.\d+\.conv2\.", "torchvision's names for a ResNet with basic blocks, such as resnet18"),
        (r"layer3\.\d+\.conv2\.", "a ResNet for CIFAR, such as cifar_resnet20"),
        (r"(kernel|params/.*)$", "a model of Flax or Keras, where PyTorch's names are wanted"),
    )
)


def guess(names: Iterable[str]) -> str:
    """What the names look like, such as "timm's names for a vision transformer"; "" where they say nothing."""
    names = tuple(names)
    return next((what for pattern, what in _SIGNS if any(map(pattern.search, names))), "")
