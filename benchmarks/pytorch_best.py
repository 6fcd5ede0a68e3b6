"""The same evaluation as a good PyTorch user would write it: large batches of one head's masked images.

Channels-last memory, frozen parameters, the trunk compiled (`torch.compile`), no graph but that of the head, whose one
backward pass per batch serves both gradient methods; what does not depend on the map is computed once per head. Nothing
is shared between heads.
"""

# PyTorch is for comparison, where it is installed.
# pyright: reportMissingImports=false

from collections.abc import Callable, Sequence

from pytorch_models import Network, can_compile, computing_in, normalise
from pytorch_official import EPSILON, ROWS_PER_STEP, Results, blur
import torch
from torch.nn import functional


@torch.no_grad()
def evaluate(
    network: Network, pixels: torch.Tensor, labels: torch.Tensor, methods: Sequence[str], batch: int
) -> Results:
    """Maps and metrics per image, `{method: {"map", "AD", …}}`, of pixels in [0, 1] under one head.

    Args:
        network: in channels-last memory, without parameters that require gradients.
        pixels: `[B, 3, H, W]` in channels-last memory; the trunk's first pass takes them all at once.
        labels: `[B]`.
        methods: any of gradcam, gradcam++, scorecam.
        batch: masked images per pass.
    """
    inputs = normalise(pixels)
    stages = network.stages(inputs)
    features = stages[-1]
    with torch.enable_grad():
        leaf = features.detach().requires_grad_()
        logits = network.classify([*stages[:-1], leaf])
        gradient = torch.autograd.grad(of_label(logits, labels).sum(), leaf)[0]
    p = of_label(logits.detach().softmax(1), labels)

    def probabilities(make: Callable[[torch.Tensor], torch.Tensor], per_image: int = 1) -> torch.Tensor:
        """`[B, per_image]`: of the inputs that `make` makes of indices, those of an image one after the other."""
        jobs = torch.arange(len(pixels) * per_image, device=pixels.device).split(batch)
        parts = [of_label(network(make(j)).softmax(1), labels[j // per_image]) for j in jobs]
        return torch.cat(parts).reshape(-1, per_image)

    height, width = pixels.shape[2:]
    moved_pixels = torch.arange(1, -(-height // ROWS_PER_STEP), device=pixels.device) * ROWS_PER_STEP * width
    steps = len(moved_pixels)
    blurred, empty = blur(inputs), torch.zeros_like(inputs)
    on_blurred, on_empty = probabilities(lambda j: blurred[j]), probabilities(lambda j: empty[j])

    def score(maps: torch.Tensor) -> dict[str, torch.Tensor]:
        saliency = functional.interpolate(maps, (height, width), mode="bilinear")
        o = probabilities(lambda j: normalise(pixels[j] * saliency[j]))[:, 0]
        order = saliency.flatten(1).argsort(dim=1, stable=True).flip(1)
        ranks = order.argsort(dim=1).reshape(saliency.shape)

        def curve(start: torch.Tensor, finish: torch.Tensor) -> torch.Tensor:
            def shown(j: torch.Tensor) -> torch.Tensor:
                moved = ranks[j // steps] < moved_pixels[j % steps, None, None, None]
                return torch.where(moved, finish[j // steps], start[j // steps])

            return probabilities(shown, steps)

        insertion = torch.cat([on_blurred, curve(blurred, inputs), p[:, None]], dim=1)
        deletion = torch.cat([p[:, None], curve(inputs, empty), on_empty], dim=1)
        return {
            "AD": (p - o).clamp(min=0) / (p + EPSILON),
            "AG": (o - p).clamp(min=0) / (1 - p + EPSILON),
            "AI": (o > p).float(),
            "I": torch.trapezoid(insertion, dim=1) / (steps + 1),
            "D": torch.trapezoid(deletion, dim=1) / (steps + 1),
            "p": p,
            "o": o,
        }

    def scorecam() -> torch.Tensor:
        """All channels of all images are one list of masks, enlarged as they are needed."""
        channels = features.shape[1]
        small = features.flatten(0, 1)[:, None]

        def masked(j: torch.Tensor) -> torch.Tensor:
            mask = min_max(functional.interpolate(small[j], (height, width), mode="bilinear", align_corners=True))
            return normalise(pixels[j // channels] * mask)

        return probabilities(masked, channels)

    def gradcampp() -> torch.Tensor:
        square = gradient**2
        alpha = square / (2 * square + features.sum((2, 3), keepdim=True) * gradient**3 + EPSILON)
        return torch.where(gradient > 0, gradient * alpha, 0.0).sum((2, 3))

    weights = {"gradcam": lambda: gradient.mean((2, 3)), "gradcam++": gradcampp, "scorecam": scorecam}
    results = {}
    for method in methods:
        cam = torch.einsum("bchw,bc->bhw", features, weights[method]()).clamp(min=0)
        maps = min_max(cam[:, None])
        scores = {"map": maps[:, 0], **score(maps)}
        results[method] = {name: value.cpu().numpy() for name, value in scores.items()}
    return results


def of_label(values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """`[B, K]` -> `[B]`: each row's value of its label."""
    return values.gather(1, labels[:, None])[:, 0]


def min_max(maps: torch.Tensor) -> torch.Tensor:
    """Each of `[B, 1, h, w]` scaled to [0, 1]; zeros where it is constant."""
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - low) / (high - low + EPSILON)


def prepare(network: Network, *, compiled: bool = True, dtype: str = "float32") -> Network:
    """Frozen, in channels-last memory, the trunk compiled where that is possible, and under autocast to bfloat16."""
    network.requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    run = torch.compile(network.run_trunk, dynamic=False) if compiled and can_compile() else network.run_trunk

    def run_trunk(inputs: torch.Tensor) -> list[torch.Tensor]:
        with computing_in(dtype, inputs.device.type):
            return [stage.float() for stage in run(inputs)]

    network.run_trunk = run_trunk
    return network
