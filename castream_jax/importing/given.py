"""What `import_torch` is given, looked at before anything is computed."""

from collections import Counter
from collections.abc import Iterable, Sequence
import inspect
import re
from typing import Any

# Wrappers of PyTorch's: what one is called, and where the module is in it.
_WRAPPERS = {
    "OptimizedModule": ("torch.compile", "._orig_mod"),
    "DataParallel": ("nn.DataParallel", ".module"),
    "DistributedDataParallel": ("DistributedDataParallel", ".module"),
}


def check_module(module: Any) -> None:
    """Raises a ValueError unless a module is plain PyTorch in float32 on the CPU; an ImportError without PyTorch."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("PyTorch is not installed: pip install 'castream_jax[torch]'.") from error
    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"import_torch takes a torch.nn.Module, got {type(module).__name__}: call the factory first.")
    for name, part in module.named_modules():
        kind, where = type(part).__name__, f"sub-module {name!r}" if name else "network"
        if isinstance(part, torch.jit.ScriptModule):
            raise ValueError(f"The {where} is a program of torch.jit: give the plain module that it was made of.")
        if kind in _WRAPPERS and type(part).__module__.startswith("torch."):
            by, attribute = _WRAPPERS[kind]
            raise ValueError(f"The {where} is wrapped by {by}: give the plain module, its {attribute}.")
        if getattr(part, "_compiled_call_impl", None) is not None:
            raise ValueError(f"The {where} was compiled in place: import it before its compile() is called.")
    others = [
        name
        for name, tensor in module.state_dict().items()
        if tensor.is_floating_point() and (tensor.dtype != torch.float32 or tensor.device.type != "cpu")
    ]
    if others:
        raise ValueError(f"{others[0]} of the network is not float32 on the CPU: import module.float().cpu().")


def check_names(module: Any, taps: Sequence[str] | None, classifier: str | None, class_names: Sequence[str]) -> None:
    """Raises a ValueError unless taps and classes have different names, and the sub-modules are there."""
    for field, names in (("taps", taps), ("class_names", class_names)):
        if names is None:
            continue
        if (
            isinstance(names, str)
            or not isinstance(names, Iterable)
            or not all(isinstance(name, str) for name in names)
        ):
            raise ValueError(f"{field} must be a sequence of names, got {names!r}.")
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"{field} names {twice[0]!r} twice: make the names different.")
        if any(not name.strip() for name in names):
            raise ValueError(f"{field} has an empty name: give all of them.")
    if taps is not None and not taps:
        raise ValueError("taps names no sub-module: leave it out for the last map of each resolution.")
    modules = dict(module.named_modules())
    unknown = [name for name in (*(taps or ()), *([] if classifier is None else [classifier])) if name not in modules]
    if unknown:
        raise ValueError(
            f"{type(module).__name__} has no sub-module {unknown[0]!r}: taps and classifier are names of "
            "named_modules()."
        )


def run_once(module: Any, name: str, image_size: int, taps: Sequence[str] = ()) -> None:
    """Raises a ValueError that says why, if a network cannot compute images of this size, or a tap gives no tensor."""
    import torch  # pyright: ignore[reportMissingImports]

    if not isinstance(image_size, int) or image_size < 1:
        raise ValueError(f"image_size must be a positive number of pixels, got {image_size!r}.")
    try:
        inspect.signature(module.forward).bind("images")
    except TypeError as error:
        raise ValueError(
            f"{name} does not take images alone ({error}): wrap it in a module that gives it the rest."
        ) from error
    given: dict[str, Any] = {}
    modules = dict(module.named_modules())
    handles = [
        modules[tap].register_forward_hook(lambda _, __, y, tap=tap: given.__setitem__(tap, type(y))) for tap in taps
    ]
    try:
        with torch.no_grad():
            module(torch.zeros(2, 3, image_size, image_size))
    except Exception as error:  # whatever a network may raise
        reason = " ".join(str(error).split()).rstrip(".")[:200]
        channels = re.search(r"expected input\[2, 3, \d+, \d+\] to have (\d+) channels", reason)
        if channels:
            raise ValueError(
                f"The first convolution of {name} takes images of another number of channels, {channels[1]}, than red, "
                "green and blue: wrap it in a module that makes them of these."
            ) from error
        raise ValueError(
            f"{name} cannot compute images of {image_size} x {image_size} pixels, [B, 3, {image_size}, {image_size}] "
            f"({type(error).__name__}: {reason}): another image_size may be its own."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    for tap, kind in given.items():
        if not issubclass(kind, torch.Tensor):
            raise ValueError(
                f"The output of {tap!r} in {name} is a {kind.__name__}, and no map: choose another sub-module."
            )
