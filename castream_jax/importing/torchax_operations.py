"""torchax's operations: of each of PyTorch's, a function of JAX arrays.

torchax 0.0.13 names overloads that PyTorch 2.13 no longer has (`aten.prod.dim_Dimname` and others of tensors with named
axes). No network uses them; while torchax is imported, and then only, such a name stands for nothing.

torchax makes itself a backend of PyTorch's as well, called "jax": `torch.compile` and `DataParallel` would look for its
devices from then on. Its operations need none of that, so that PyTorch stays as it was. A program that computes with
torchax itself imports torchax before.
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

        with _names_that_are_gone(), _no_backend():
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


@contextlib.contextmanager
def _no_backend() -> Iterator[None]:
    """PyTorch gets no backend called "jax", and keeps its fast path of attention."""
    import torch  # pyright: ignore[reportMissingImports]

    fast_path = torch.backends.mha.get_fastpath_enabled()
    utilities: Any = torch.utils
    package: Any = torch
    before = utilities.rename_privateuse1_backend, package._register_device_module
    utilities.rename_privateuse1_backend = package._register_device_module = lambda *_: None
    try:
        yield
    finally:
        utilities.rename_privateuse1_backend, package._register_device_module = before
        torch.backends.mha.set_fastpath_enabled(fast_path)
