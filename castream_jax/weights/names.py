"""PyTorch's tensor names and layouts for the parameters of a module whose attribute paths are PyTorch's names."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from flax import nnx
import jax.numpy as jnp
import numpy as np

from castream_jax.weights.guess import guess

_TORCH_LEAF = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "layer_scale": "layer_scale",
}

# number of axes -> PyTorch's axes in our order: convolutions OIHW -> HWIO, layer_scale CHW -> HWC, matrices OI -> IO
_TORCH_AXES = {4: (2, 3, 1, 0), 3: (1, 2, 0), 2: (1, 0), 1: (0,)}


# What training wraps a network in leaves before all its names.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.")
_FEW = 5  # names that a message lists


def shared_prefix(names: Iterable[str]) -> str:
    """The wrappers before every name, such as `"module.model."`; "" where there are none."""
    rest, prefix = tuple(names), ""
    while rest and (wrapper := next((w for w in _WRAPPERS if all(name.startswith(w) for name in rest)), "")):
        rest, prefix = tuple(name.removeprefix(wrapper) for name in rest), prefix + wrapper
    return prefix


def without_wrappers(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors under the names that they have in the network itself.

    DataParallel, averaging, `torch.compile` and training frameworks put `module.`, `_orig_mod.`, `model.` or
    `backbone.` before all names, and averaging counts in a tensor of its own.
    """
    compiled = {name.replace("._orig_mod.", "."): value for name, value in tensors.items() if name != "n_averaged"}
    prefix = shared_prefix(compiled)
    return {name.removeprefix(prefix): value for name, value in compiled.items()}


def few(names: Sequence[str], count: int = _FEW) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - count:,} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def check_names(what: str, *, expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> None:
    """Raises a ValueError with the first missing, extra and misshaped names, if any, and what they look like."""
    misshaped = [
        f"{name} is {list(given[name])}, should be {list(expected[name])}"
        for name in expected
        if name in given and tuple(given[name]) != tuple(expected[name])
    ]
    problems = {
        "missing": [name for name in expected if name not in given],
        "extra": [name for name in given if name not in expected],
        "misshaped": misshaped,
    }
    listing = "; ".join(f"{kind}: {few(names)}" for kind, names in problems.items() if names)
    if listing:
        raise ValueError(f"These weights are not those of {what}. {listing}.{_likely(problems['missing'], given)}")


def _likely(missing: Sequence[str], given: Iterable[str]) -> str:
    """What a file whose names are others seems to be: a network below some prefix, or one of another kind."""
    given = tuple(given)
    if len(missing) < 2:
        return ""
    name = max(missing, key=len)
    for prefix in (other.removesuffix(name) for other in given if other.endswith(f".{name}")):
        below = set(given)
        if sum(prefix + one in below for one in missing) > len(missing) / 2:
            return f" They are there under {prefix!r}: save these tensors alone, without that prefix."
    looks = guess(given)
    return f" The file looks like {looks}." if looks else ""


def check_values(what: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises a ValueError that names the tensors of another type than floating point, with NaN or infinity, or of
    variances below 0."""
    names = [
        f"{name} is {value.dtype}" for name, value in arrays.items() if not jnp.issubdtype(value.dtype, jnp.floating)
    ]
    if names:
        raise ValueError(f"These weights of {what} are not floating point: {few(names, 3)}. Save them as float32.")
    names = [name for name, value in arrays.items() if not np.isfinite(value).all()]
    if names:
        raise ValueError(f"These weights of {what} are not finite: {few(names, 3)}. Get the file again.")
    names = [name for name, value in arrays.items() if name.endswith("running_var") and (value < 0).any()]
    if names:
        raise ValueError(f"These weights of {what} have negative variances: {few(names, 3)}. Get the file again.")


def torch_variables(module: nnx.Module) -> Iterator[tuple[str, nnx.Variable]]:
    """(torchvision name, variable) of every parameter and statistic: attribute paths are torchvision's names."""
    for path, node in nnx.iter_graph(module):
        if isinstance(node, nnx.Variable):
            *modules, leaf = path
            yield ".".join(map(str, (*modules, _TORCH_LEAF[str(leaf)]))), node


def from_torch_layout(value: np.ndarray) -> np.ndarray:
    """A tensor with its axes in our order."""
    return value.transpose(_TORCH_AXES[value.ndim])


def to_torch_layout(value: np.ndarray) -> np.ndarray:
    """The inverse of `from_torch_layout`."""
    return value.transpose(np.argsort(_TORCH_AXES[value.ndim]))


def torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that an array of `shape` has in PyTorch."""
    return tuple(shape[axis] for axis in np.argsort(_TORCH_AXES[len(shape)]))
