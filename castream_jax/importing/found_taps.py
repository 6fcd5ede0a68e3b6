"""Feature maps of a network that does not describe itself: the last output of each resolution."""

from collections.abc import Iterator
from typing import Any


def found_taps(module: Any, image_size: int) -> tuple[str, ...]:
    """Names of sub-modules, in the order of the computation, whose outputs are the last maps of their size.

    Only the network's own children are looked at, and those of a `Sequential` among them. A network whose last map is
    not found so is refused by the comparison with PyTorch; naming the taps is for these.
    """
    last_of_size: dict[tuple[int, int], str] = {}
    for name, size in _outputs(module, image_size):
        if size != (1, 1):
            last_of_size.pop(size, None)
            last_of_size[size] = name
    return tuple(last_of_size.values())


def one_pixel_hint(module: Any, image_size: int) -> str:
    """What to say if the last map before any pooling has a single position: it is no tap."""
    last = ""
    for name, size in _outputs(module, image_size):
        if size == (1, 1):
            if "pool" in f"{name} {type(module.get_submodule(name)).__name__}".lower():
                break
            last = name
    if not last:
        return ""
    size = f"{image_size} x {image_size}"
    return f" Its last map, {last}, is 1 x 1 for images of {size} pixels: import it for larger images."


def _outputs(module: Any, image_size: int) -> list[tuple[str, tuple[int, int]]]:
    """Sub-modules and the sizes of the maps that they give, in the order of the computation."""
    import torch  # pyright: ignore[reportMissingImports]

    found: list[tuple[str, tuple[int, int]]] = []

    def keep(name: str) -> Any:
        def hook(_: Any, __: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and output.ndim == 4:
                found.append((name, (int(output.shape[2]), int(output.shape[3]))))

        return hook

    handles = [part.register_forward_hook(keep(name)) for name, part in _parts(module, "")]
    try:
        with torch.no_grad():
            module(torch.zeros(2, 3, image_size, image_size))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _parts(module: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    import torch  # pyright: ignore[reportMissingImports]

    for name, part in module.named_children():
        if isinstance(part, torch.nn.Sequential):
            yield from _parts(part, f"{prefix}{name}.")
        yield f"{prefix}{name}", part
