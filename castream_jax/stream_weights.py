"""A stream's weights under the official code's names."""

from collections.abc import Mapping
from typing import Literal

from flax import nnx
import jax.numpy as jnp
import numpy as np

from castream_jax.stream import CrossAttentionStream, ProjectedCrossAttention
from castream_jax.weights.names import check_names, check_values, without_wrappers


def load_torch_stream(stream: CrossAttentionStream, state_dict: Mapping[str, np.ndarray]) -> None:
    """Copies a stream of the official implementation (`{official name: array}`) into `stream`, in place.

    Official names: `cls_token` `[1, num_queries, d]`; then, per stage, `base`, `l1` … (ResNets) or `cls_stream.N`
    (ConvNeXts), each with `.to_out.1.weight` and `.to_out.1.bias`. The official code has no PROJ -> CA layers; here
    they are `.to_k` and `.to_v`.

    Raises:
        ValueError: if any name is missing, extra or of another shape, or any value is not finite; the names are listed
            and nothing is changed.
    """
    state_dict = without_wrappers(state_dict)
    convnext = any(name.startswith("cls_stream.") for name in state_dict)
    variables = _official_variables(stream, "convnext" if convnext else "resnet")
    check_names(
        f"a stream from S{stream.start_stage} on (block {stream.block!r}, {stream.num_queries} queries)",
        expected={
            name: (1, *variable.shape) if name == "cls_token" else variable.shape[::-1]
            for name, variable in variables.items()
        },
        given={name: np.shape(value) for name, value in state_dict.items()},
    )
    check_values("a stream", {name: np.asarray(value) for name, value in state_dict.items()})
    for name, variable in variables.items():
        value = np.asarray(state_dict[name], np.float32)
        variable.set_value(jnp.asarray(value[0] if name == "cls_token" else value.T))


def torch_stream_state_dict(
    stream: CrossAttentionStream, style: Literal["resnet", "convnext"] = "resnet"
) -> dict[str, np.ndarray]:
    """The inverse of `load_torch_stream`: `{official name: array}`, named as the official `style` of trunk names them.

    Raises:
        ValueError: for another style.
    """
    if style not in ("resnet", "convnext"):
        raise ValueError(f"style must be 'resnet' or 'convnext', got {style!r}.")
    arrays = {name: np.asarray(variable[...]) for name, variable in _official_variables(stream, style).items()}
    return {
        name: value[None] if name == "cls_token" else np.ascontiguousarray(value.T) for name, value in arrays.items()
    }


def _official_variables(stream: CrossAttentionStream, style: Literal["resnet", "convnext"]) -> dict[str, nnx.Variable]:
    variables: dict[str, nnx.Variable] = {"cls_token": stream.cls_token}
    for number, (attention, projection) in enumerate(zip(stream.attentions, stream.projections, strict=True)):
        stage = number + stream.start_stage
        prefix = f"cls_stream.{number}" if style == "convnext" else ("base" if stage == 0 else f"l{stage}")
        layers = {"to_out.1": projection}
        if isinstance(attention, ProjectedCrossAttention):
            layers |= {"to_k": attention.key, "to_v": attention.value}
        for layer_name, layer in layers.items():
            variables[f"{prefix}.{layer_name}.weight"] = layer.kernel
            if layer.bias is not None:
                variables[f"{prefix}.{layer_name}.bias"] = layer.bias
    return variables
