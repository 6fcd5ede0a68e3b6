"""Protocol: the named, frozen set of choices that turns saliency maps into numbers.

Attribution and metrics both read it, so it stands before both. Two results are comparable when their hashes agree.
"""

import dataclasses
import hashlib
import json
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Choices on which published numbers differ.

    Attributes:
        name: what people call it; not part of the hash.
        target_class: the class that is explained and scored: the ground-truth `"label"`, or the class `"predicted"`
            by each head on the unmasked image.
        target_stage: stage whose features are weighed into a map; None for the last one.
        target_features: at the last stage, `"residual"`, the backbone's own choice (a ConvNeXt's last residual branch
            before its layer scale), or `"pooled"`, the features that GAP pools.
        map_order: maps become [0, 1] at feature resolution and are then enlarged (`"min_max_then_resize"`), or the
            other way round.
        gradcampp_sum: what stands beside `2 g^2` in the denominator of Grad-CAM++'s weights: `"a*g3"`, the sum of
            activations times this position's `g^3` (its eq. 19), or `"sum(a*g3)"`, the sum of the products.
        scorecam_weight: a channel's weight: the `"class_probability"` on the image masked by it, or the softmax over
            all channels of the class's logits (`"channel_softmax"`).
        scorecam_mask: a channel is enlarged with aligned corners and then brought to [0, 1]
            (`"resize_then_min_max"`), or brought to [0, 1] and enlarged with half-pixel centres
            (`"min_max_then_resize"`).
        scorecam_channels: channels scored, the most active ones of each image; 0 for all.
        rise_masks, rise_cells, rise_probability: RISE's masks: how many, of how many cells a side, each cell on with
            which probability.
        opticam_steps, opticam_learning_rate: Opti-CAM's optimisation of its channel weights by Adam.
        masked_space: an image is multiplied by a mask as `"pixels"` (off is black) or `"normalised"` (off is the mean
            colour).
        insertion_start: `"blurred"`, or `"mean"`, the image that is zero in normalised space.
        blur_size, blur_sigma: kernel of the blurred image, in pixels; applied in normalised space with zero padding.
        rows_per_step: insertion and deletion move `rows_per_step * width` pixels a step.
        num_steps: or as many in each of `num_steps` steps; 0: `rows_per_step` counts.
        seed: of all that is random (RISE's masks, random baselines).
    """

    name: str
    target_class: Literal["label", "predicted"] = "label"
    target_stage: int | None = None
    target_features: Literal["residual", "pooled"] = "residual"
    map_order: Literal["min_max_then_resize", "resize_then_min_max"] = "min_max_then_resize"
    gradcampp_sum: Literal["a*g3", "sum(a*g3)"] = "a*g3"
    scorecam_weight: Literal["class_probability", "channel_softmax"] = "class_probability"
    scorecam_mask: Literal["resize_then_min_max", "min_max_then_resize"] = "resize_then_min_max"
    scorecam_channels: int = 0
    rise_masks: int = 4000
    rise_cells: int = 7
    rise_probability: float = 0.5
    opticam_steps: int = 100
    opticam_learning_rate: float = 0.1
    masked_space: Literal["pixels", "normalised"] = "pixels"
    insertion_start: Literal["blurred", "mean"] = "blurred"
    blur_size: int = 5
    blur_sigma: float = 5.0
    rows_per_step: int = 8
    num_steps: int = 0
    seed: int = 0

    @property
    def hash(self) -> str:
        """12 hexadecimal digits over every field but the name."""
        fields = {key: value for key, value in self.as_dict().items() if key != "name"}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]

    def as_dict(self) -> dict[str, Any]:
        """Fields as plain values."""
        return dataclasses.asdict(self)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("castream"),
        Protocol("castream-pred", target_class="predicted"),
        Protocol("rise", target_class="predicted", blur_size=11, rows_per_step=1),
    )
}


def get_protocol(protocol: str | Protocol) -> Protocol:
    """A protocol by its name, or itself.

    Raises:
        ValueError: for an unknown name.
    """
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise ValueError(f"Unknown protocol {protocol!r}: one of {', '.join(PROTOCOLS)}, or a Protocol.")
    return PROTOCOLS[protocol]
