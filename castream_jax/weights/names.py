"""PyTorch's tensor names and layouts for the parameters of a module whose attribute paths are PyTorch's names."""

from collections.abc import Iterator, Mapping

from flax import nnx
import numpy as np

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


def check_names(what: str, *, expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> None:
    """Raises a ValueError listing every missing, extra and misshaped name, if there is one."""
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
    listing = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in problems.items() if names)
    if listing:
        raise ValueError(f"These weights are not those of {what}. {listing}.")


def check_values(what: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises a ValueError that names the tensors with NaN or infinity, the first three and how many there are."""
    names = [name for name, value in arrays.items() if not np.isfinite(value).all()]
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise ValueError(f"These weights of {what} are not finite: {', '.join(names[:3])}{more}. Get the file again.")


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
