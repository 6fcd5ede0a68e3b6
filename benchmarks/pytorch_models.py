"""The compared networks in PyTorch: a trunk under GAP or under a stream, with the weights of ours.

Importing this needs torch and torchvision; the latter also where it lacks its compiled operators.
"""

# PyTorch is for comparison, where it is installed.
# pyright: reportMissingImports=false

import shutil

import numpy as np
import torch
from torch import nn
from torch.nn import functional

try:
    import torchvision
except RuntimeError:  # torchvision was installed without its compiled operators, which the models have no use for
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    library.define("qnms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    import torchvision

from castream_jax.backbones import Backbone, torch_state_dict
from castream_jax.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD
from castream_jax.stream import CrossAttentionStream
from castream_jax.stream_weights import torch_stream_state_dict


class Network(nn.Module):
    """Trunk, one head, classifier; on normalised images `[B, 3, H, W]`.

    Attributes:
        parts: what leads to S0, and from each stage to the next; the last one's output is what CAMs weigh.
        stream: the head; None for GAP.
        images_seen: images passed forward through the trunk so far.
        run_trunk: from inputs to the stages; may be replaced by another form of itself.
    """

    def __init__(self, backbone: Backbone, stream: CrossAttentionStream | None = None):
        super().__init__()
        if backbone.name.startswith("cifar_resnet"):
            trunk = CifarResNet(depth=int(backbone.name.removeprefix("cifar_resnet")))
            self.classifier = trunk.linear
        else:
            trunk = getattr(torchvision.models, backbone.name)()
            self.classifier = trunk.fc
        trunk.load_state_dict(_tensors(torch_state_dict(backbone)))
        layers = (getattr(trunk, f"layer{number}", None) for number in range(1, 5))
        stem = [trunk.conv1, trunk.bn1, nn.ReLU(inplace=True), *([trunk.maxpool] if hasattr(trunk, "maxpool") else [])]
        self.parts = nn.ModuleList([nn.Sequential(*stem), *(layer for layer in layers if layer is not None)])
        self.stream = None if stream is None else Stream(torch_stream_state_dict(stream))
        self.images_seen = 0
        self.run_trunk = self._run_trunk
        self.eval()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.classify(self.stages(inputs))

    def stages(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        self.images_seen += len(inputs)
        return self.run_trunk(inputs)

    def _run_trunk(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        stages = []
        for part in self.parts:
            inputs = part(inputs)
            stages.append(inputs)
        return stages

    def classify(self, stages: list[torch.Tensor]) -> torch.Tensor:
        return self.classifier(stages[-1].mean((2, 3)) if self.stream is None else self.stream(stages))


class Stream(nn.Module):
    """`q_{l+1} = W_l F_l^T softmax(F_l q_l / sqrt(d_l)) + b_l` from S0 to the last stage (paper, eq. 10)."""

    def __init__(self, state_dict: dict[str, np.ndarray]):
        super().__init__()
        tensors = _tensors(state_dict)
        self.cls_token = nn.Parameter(tensors.pop("cls_token")[0])
        self.projections = nn.ModuleList()
        for name in [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]:
            out_features, in_features = tensors[f"{name}.weight"].shape
            projection = nn.Linear(in_features, out_features)
            projection.load_state_dict({key: tensors[f"{name}.{key}"] for key in ("weight", "bias")})
            self.projections.append(projection)

    def forward(self, stages: list[torch.Tensor]) -> torch.Tensor:
        token = self.cls_token.expand(len(stages[0]), -1)[:, None]
        for stage, projection in zip(stages, self.projections, strict=True):
            features = stage.flatten(2)  # [B, d, p], without a copy in either memory format
            attention = (token @ features * features.shape[1] ** -0.5).softmax(-1)
            token = projection(attention @ features.transpose(1, 2))
        return token[:, 0]


class CifarBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut without parameters (He et al., 2016, option A)."""

    def __init__(self, in_features: int, width: int, stride: int):
        super().__init__()
        self.stride, self.padding = stride, (width - in_features) // 2
        self.conv1 = nn.Conv2d(in_features, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        if self.stride > 1:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return functional.relu(y + x)


class CifarResNet(nn.Module):
    """The 6n + 2 layers of He et al. (2016, section 4.2), under the names of the published weights."""

    def __init__(self, depth: int, num_classes: int = 10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths, count = (16, 16, 32, 64), (depth - 2) // 6
        for number in (1, 2, 3):
            blocks = [CifarBlock(widths[number - 1], widths[number], stride=1 if number == 1 else 2)]
            blocks += [CifarBlock(widths[number], widths[number], stride=1) for _ in range(count - 1)]
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, num_classes)


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels - _row(IMAGENET_MEAN, pixels)) / _row(IMAGENET_STD, pixels)


def denormalise(inputs: torch.Tensor) -> torch.Tensor:
    return inputs * _row(IMAGENET_STD, inputs) + _row(IMAGENET_MEAN, inputs)


def _row(values: tuple[float, ...], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, device=like.device).reshape(1, 3, 1, 1)


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(np.asarray(array)) for name, array in arrays.items()}


def can_compile() -> bool:
    """Whether `torch.compile` can work here: on a CPU it needs a C++ compiler."""
    return torch.cuda.is_available() or any(map(shutil.which, ("c++", "g++", "clang++")))


def computing_in(dtype: str, device: str) -> torch.autocast:
    """Around what computes in `dtype`. PyTorch's default for float32 on a GPU is TF32 in convolutions alone."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = dtype == "tensorfloat32"
    return torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16")
