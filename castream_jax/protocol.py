"""Protocol: the named, frozen set of choices that turns saliency maps into numbers.

Attribution and metrics both read it, so it stands before both. Two results are comparable when their hashes agree.
"""

import dataclasses
import difflib
import hashlib
import json
import math
from typing import Any, Literal, get_args, get_origin

import jax
from jaxtyping import Array, Float

from castream_jax.allowed import Allowed, above, at_least, within


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Choices on which published numbers differ.

    Attributes:
        name: what people call it; not part of the hash. A name of `PROTOCOLS` goes with that protocol's choices alone:
            a variant of one has the name of the protocol that it equals, or says what differs, as in
            `"rise with seed=3"`.
        target_class: the class that is explained and scored: the ground-truth `"label"`, or the class `"predicted"`
            by each head on the unmasked image.
        causal_class: the class that insertion and deletion follow: the explained one (`"target"`), or the class
            `"predicted"` whichever is explained.
        probability: `"softmax"` over the classes, or the `"sigmoid"` of the class's own logit (multi-label).
        target_stage: stage whose features are weighed into a map; None for the last one.
        target_features: at the last stage, `"residual"`, the backbone's own choice (a ConvNeXt's last residual branch
            before its layer scale), or `"pooled"`, the features that GAP pools.
        map_order: maps become [0, 1] at feature resolution and are then enlarged (`"min_max_then_resize"`), or the
            other way round: then `attribute` returns them at the image's size, and `score` takes them as they are.
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
        num_steps: or at most `num_steps` steps of equally many pixels, the last one of what remains; 0:
            `rows_per_step` counts.
        ties: of equally salient pixels, the one that comes `"last_first"` or `"first_first"` in reading order moves
            first.
        area: of insertion and deletion, by trapezoids of equal width (`"steps"`), or as wide as the share of pixels
            that the step moves (`"fractions"`). They differ where the last step is short.
        seed: of all that is random (RISE's masks, random baselines).

    Examples:
        >>> castream.get_protocol("rise").blur_size
        11
        >>> castream.Protocol("mine", blur_size=7).hash == castream.Protocol("another name", blur_size=7).hash
        True
    """

    name: str = "castream"
    target_class: Literal["label", "predicted"] = "label"
    causal_class: Literal["target", "predicted"] = "target"
    probability: Literal["softmax", "sigmoid"] = "softmax"
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
    ties: Literal["last_first", "first_first"] = "last_first"
    area: Literal["steps", "fractions"] = "steps"
    seed: int = 0

    def __post_init__(self):
        """Raises a ValueError for a choice that does not exist: a misspelt one must not pass for another."""
        for field in dataclasses.fields(self):
            value, choices = getattr(self, field.name), get_args(field.type)
            if field.type in _TYPES and (isinstance(value, bool) or not isinstance(value, _TYPES[field.type])):
                raise ValueError(f"A protocol's {field.name} must be {_described(field.type)}, got {value!r}.")
            if field.type is float:  # equal protocols have equal hashes
                object.__setattr__(self, field.name, float(value))
            if get_origin(field.type) is Literal and value not in choices:
                known = " or ".join(map(repr, choices))
                raise ValueError(f"A protocol's {field.name} must be {known}, got {value!r}.")
        for name, allowed in _RANGES.items():
            value = getattr(self, name)
            if not math.isfinite(value) or not allowed.includes(value):
                raise ValueError(f"A protocol's {name} must be {allowed.words}, got {value!r}.")
        object.__setattr__(self, "name", self._own_name())

    def _own_name(self) -> str:
        """A name that nobody takes for other choices: `dataclasses.replace` keeps the one it is given."""
        known = globals().get("PROTOCOLS", {})  # not while it is being made
        original = known.get(self.name.partition(_VARIANT)[0])
        if original is None:
            return self.name
        for protocol in (original, *known.values()):
            if not differences(protocol, self):
                return protocol.name
        changed = ", ".join(f"{field}={value}" for field, (_, value) in differences(original, self).items())
        return f"{original.name}{_VARIANT}{changed}"

    def probabilities(self, logits: Float[Array, "*b k"]) -> Float[Array, "*b k"]:
        """What the metrics call the probability of each class."""
        return jax.nn.softmax(logits) if self.probability == "softmax" else jax.nn.sigmoid(logits)

    @property
    def hash(self) -> str:
        """12 hexadecimal digits over every field but the name."""
        fields = {key: value for key, value in self.as_dict().items() if key != "name"}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]

    def as_dict(self) -> dict[str, Any]:
        """Fields as plain values."""
        return dataclasses.asdict(self)

    def makes_the_maps_of(self, other: "Protocol") -> bool:
        """Whether every method has the same maps under both, which differ at most in how insertion and deletion run."""
        return differences(self, other).keys() <= _OF_CURVES


def differences(a: Protocol, b: Protocol) -> dict[str, tuple[Any, Any]]:
    """`{field: (value in a, value in b)}` of the fields that differ, the name aside."""
    fields = [field.name for field in dataclasses.fields(Protocol) if field.name != "name"]
    return {name: (getattr(a, name), getattr(b, name)) for name in fields if getattr(a, name) != getattr(b, name)}


# Types that a value of each declared type may have.
_TYPES: dict[Any, Any] = {str: str, int: int, float: int | float, int | None: int | None}

# Fields that no attribution method reads.
_OF_CURVES = {
    "causal_class",
    "insertion_start",
    "blur_size",
    "blur_sigma",
    "rows_per_step",
    "num_steps",
    "ties",
    "area",
}

# Between the name of a protocol and what a variant of it changes.
_VARIANT = " with "


_RANGES = {
    "scorecam_channels": at_least(0),
    "rise_masks": at_least(1),
    "rise_cells": at_least(1),
    "rise_probability": Allowed(lambda value: 0 < value < 1, "greater than 0 and less than 1"),
    "opticam_steps": at_least(1),
    "opticam_learning_rate": above(0),
    "blur_size": Allowed(lambda value: value > 0 and value % 2 == 1, "odd, so that the kernel has a centre"),
    "blur_sigma": at_least(0.1),
    "rows_per_step": at_least(1),
    "num_steps": at_least(0),
    "seed": within(0, 2**32 - 1),
}


def _described(declared: Any) -> str:
    return {str: "text", int: "a whole number", float: "a number"}.get(declared, "a whole number or None")


# What each source leaves open (RISE knows no AD, nobody but CA-Stream fixes the seed) is as in "castream".
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # The official code of CA-Stream (ftorres11/CA_Stream 690615b), for images of one label.
        Protocol("castream"),
        # The same with its option --pred.
        Protocol("castream-pred", target_class="predicted"),
        # RISE (eclique/RISE d91ea00, evaluation.py and Evaluation.ipynb): insertion from an image blurred by 11 x 11
        # pixels, deletion to zeros, both of the normalised input; a row's worth of pixels a step; the class predicted.
        # Its order of equals is that of an unstable sort.
        Protocol("rise", target_class="predicted", blur_size=11, rows_per_step=1),
        # Opti-CAM (Zhang et al., CVIU 248, 2024, sections 4 and 5.3; hanwei0912/OptiCAM 78339fa makes the maps, its
        # evaluation is not published). Section 4: AD, AG and AI of the true class, maps at the image's size. Section
        # 5.3.2: insertion and deletion are RISE's, 224 steps of 224 pixels, of the class predicted. The code multiplies
        # pixels by the map and normalises the product; 5.3.1 and generate_opticam.py: 100 steps of Adam at 0.1.
        Protocol(
            "opticam",
            causal_class="predicted",
            target_features="pooled",
            map_order="resize_then_min_max",
            scorecam_weight="channel_softmax",
            blur_size=11,
            rows_per_step=1,
        ),
        # torch-cam (frgfm/torch-cam f44afef, metrics.py and scripts/eval_perf.py; methods/core.py, activation.py and
        # gradient.py for the maps): all masks on the normalised tensor, both curves against its zeros, 20 steps. Left
        # out: the 1e-7 that it adds to the denominator of AD, which no predicted class notices, and that eval_perf.py
        # differentiates the class's probability, where its extractors are otherwise given logits.
        Protocol(
            "torchcam",
            target_class="predicted",
            target_features="pooled",
            gradcampp_sum="sum(a*g3)",
            scorecam_weight="channel_softmax",
            scorecam_mask="min_max_then_resize",
            masked_space="normalised",
            insertion_start="mean",
            num_steps=20,
            ties="first_first",
            area="fractions",
        ),
    )
}


def get_protocol(protocol: str | Protocol) -> Protocol:
    """A protocol by its name, or itself.

    Raises:
        ValueError: for an unknown name, with the nearest known one.
    """
    if isinstance(protocol, Protocol):
        return protocol
    if not isinstance(protocol, str):
        raise ValueError(f"A protocol is a name or a Protocol, got {protocol!r}: one of {', '.join(PROTOCOLS)}.")
    if protocol not in PROTOCOLS:
        near = difflib.get_close_matches(protocol, PROTOCOLS, n=2)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"Unknown protocol {protocol!r}: {hint}one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[protocol]
