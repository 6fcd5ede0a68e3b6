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
        blur_size, blur_sigma: kernel of the blurred image that insertion starts from, in pixels; applied in
            normalised space with zero padding.
        rows_per_step: insertion and deletion move `rows_per_step * width` pixels a step.
    """

    name: str
    target_class: Literal["label", "predicted"] = "label"
    blur_size: int = 5
    blur_sigma: float = 5.0
    rows_per_step: int = 8

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
