"""torchax's operations: of each of PyTorch's, a function of JAX arrays.

torchax 0.0.13 names overloads that PyTorch 2.13 no longer has (`aten.prod.dim_Dimname` and others of tensors with named
axes). No network uses them; while torchax is imported, and then only, such a name stands for nothing.
"""

from collections.abc import Callable, Iterator
import contextlib
import functools
import importlib
from typing import Any


@functools.cache
def torchax_operations() -> tuple[dict[Any, Any], Any]:
    """Operation of PyTorch -> torchax's, and the decompositions that it expects before.

    Raises:
        ImportError: if torchax or PyTorch is not installed, with what to install.
    """
    try:
        import torch  # noqa: F401  # pyright: ignore[reportMissingImports]

        with _names_that_are_gone():
            decompositions = importlib.import_module("torchax.decompositions")
            importlib.import_module("torchax.ops.jaten")  # which fills the registry
            ops_registry = importlib.import_module("torchax.ops.ops_registry")
    except ImportError as error:
        raise ImportError(
            f"A PyTorch network is imported by PyTorch and torchax, and {error.name or error} is not installed: "
            "pip install 'castream_jax[torch]'."
        ) from error
    return ops_registry.all_aten_ops, decompositions.DECOMPOSITIONS


def jax_operation(target: Any) -> Callable[..., Any]:
    """torchax's function for an operation of PyTorch.

    Raises:
        NotImplementedError: if it has none.
    """
    operations, _ = torchax_operations()
    found = operations.get(target) or operations.get(getattr(target, "overloadpacket", None))
    if found is None or not found.is_jax_function:
        raise NotImplementedError(f"{target}")
    return found.func


@contextlib.contextmanager
def _names_that_are_gone() -> Iterator[None]:
    """Overloads of named axes that PyTorch does not have: a text instead of each."""
    import torch  # pyright: ignore[reportMissingImports]

    packets: Any = torch._ops.OpOverloadPacket
    look_up = packets.__getattr__

    def tolerant(packet: Any, name: str) -> Any:
        try:
            return look_up(packet, name)
        except AttributeError:
            if "name" not in name.lower():
                raise
            return f"{packet}.{name}"

    packets.__getattr__ = tolerant
    try:
        yield
    finally:
        packets.__getattr__ = look_up
