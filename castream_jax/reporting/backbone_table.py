"""The table of backbones and their streams, from shapes alone: no parameter is allocated."""

from collections.abc import Iterator
import functools

from flax import nnx
import jax

from castream_jax.backbones import abstract_backbone, backbone_names, get_architecture
from castream_jax.stream import CrossAttentionStream
from castream_jax.weights.entries import known_entries


def models_table() -> Iterator[str]:
    """Lines of Markdown, each when it is ready: size, taps and published weights of every backbone, and its streams.

    The stream is the default one (from S0, `ca` blocks), on the official taps and on `taps="stages"`.
    """
    yield "| backbone | input | parameters | channels of S0 … SL | stream | stream on `stages` | weights |"
    yield "|---|---:|---:|---|---:|---:|---|"
    for name in backbone_names():
        backbone = abstract_backbone(name)
        cells = (
            f"`{name}`",
            f"{get_architecture(name).input_size}",
            f"{_count(backbone):,}",
            ", ".join(map(str, backbone.stage_dims)),
            f"{_stream_parameters(backbone.stage_dims):,}",
            f"{_stream_parameters(abstract_backbone(name, taps='stages').stage_dims):,}",
            ", ".join(f"`{entry}`" for entry in known_entries(name)) or "file",
        )
        yield f"| {' | '.join(cells)} |"


@functools.cache
def _stream_parameters(stage_dims: tuple[int, ...]) -> int:
    return _count(nnx.eval_shape(lambda: CrossAttentionStream(stage_dims, rngs=nnx.Rngs(0))))


def _count(module: nnx.Module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))
