"""Feature maps of a network that does not describe itself: the last output of each resolution."""

from collections.abc import Iterator
from typing import Any


def found_taps(module: Any, image_size: int) -> tuple[str, ...]:
    """Names of sub-modules, in the order of the computation, whose outputs are the last maps of their size.

    Only the network's own children are looked at, and those of a `Sequential` among them. A network whose last map is
    not found so is refused by the comparison with PyTorch; naming the taps is for these.
    """
    import torch  # pyright: ignore[reportMissingImports]

    last_of_size: dict[tuple[int, int], str] = {}
    handles = []

    def keep(name: str) -> Any:
        def hook(_: Any, __: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
                size = (int(output.shape[2]), int(output.shape[3]))
                last_of_size.pop(size, None)
                last_of_size[size] = name

        return hook

    for name, part in _parts(module, ""):
        handles.append(part.register_forward_hook(keep(name)))
    try:
        with torch.no_grad():
            module(torch.zeros(1, 3, image_size, image_size))
    except Exception as error:  # whatever a network may raise
        reason = " ".join(str(error).split()).rstrip(".")[:200]
        raise ValueError(
            f"{type(module).__name__} does not take images of {image_size} x {image_size} pixels ({reason}): give its "
            "image_size."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return tuple(last_of_size.values())


def _parts(module: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    import torch  # pyright: ignore[reportMissingImports]

    for name, part in module.named_children():
        if isinstance(part, torch.nn.Sequential):
            yield from _parts(part, f"{prefix}{name}.")
        yield f"{prefix}{name}", part
