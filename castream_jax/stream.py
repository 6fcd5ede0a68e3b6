"""CA-Stream (paper, section 3.3): a CLS token that cross-attends to a network's stages and replaces average pooling.

Axes: b image, p = h w positions of a stage, d channels of that stage, n attention head, c = d / n channels of a head.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Literal

from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from castream_jax.backbones.pooled_stages import own_pooling
from castream_jax.kernels.attention_pooling import weighted_sum
from castream_jax.kernels.precision import PRECISION
from castream_jax.kernels.product import product
from castream_jax.kernels.times_transposed import times_transposed
from castream_jax.layers import linear
from castream_jax.weights.names import check_names, check_values, without_wrappers

# S0 … SL, each of its own size.
Stages = Sequence[Float[Array, "b _hl _wl _dl"]]
Attention = tuple[Float[Array, "b n _hl _wl"], ...]

_xavier = nnx.initializers.xavier_uniform()


class GlobalAveragePooling(nnx.Module):
    """The head that a CNN is trained with: the mean over positions of the last stage.

    Examples:
        >>> representation, attention = castream.GlobalAveragePooling()((jnp.ones((1, 7, 7, 512)),))
        >>> representation.shape, attention
        ((1, 512), ())
    """

    def __call__(self, stages: Stages, query: Int[Array, " b"] | None = None) -> tuple[Float[Array, "b d"], Attention]:
        """Representation `[B, d_L]` and no attention; `query` is ignored."""
        return stages[-1].mean((1, 2)), ()


class NativePooling(nnx.Module):
    """The head that the network was trained with, whichever it is: a transformer's class token, a CNN's average.

    It needs no parameters: what it gives comes along with the stages, see `castream_jax.backbones.pooled_stages`.

    Examples:
        >>> representation, attention = castream.NativePooling()((jnp.ones((1, 7, 7, 512)),))
        >>> representation.shape, attention
        ((1, 512), ())
    """

    def __call__(self, stages: Stages, query: Int[Array, " b"] | None = None) -> tuple[Float[Array, "b d"], Attention]:
        """Representation `[B, d_L]` and no attention; `query` is ignored."""
        return own_pooling(stages), ()


def _einsum(subscripts: str, *operands: Array) -> Array:
    return jnp.einsum(subscripts, *operands, precision=PRECISION)


class CrossAttention(nnx.Module):
    """Cross attention between one query and a stage, `CA(q, F) = F^T softmax(F q / sqrt(d))` (eqs. 4 and 6).

    With several attention heads, each attends over its own d / n channels; the scale stays 1 / sqrt(d), as in
    the official code.
    """

    def __init__(self, num_heads: int):
        self.num_heads = num_heads

    def logits(self, query: Float[Array, "b d"], features: Float[Array, "b p d"]) -> Float[Array, "b n p"]:
        """`F q / sqrt(d)`: a class activation map whose channel weights are the query (eq. 5)."""
        return _einsum("bpnc,bnc->bnp", self._by_head(features), self._by_head(query)) * (features.shape[-1] ** -0.5)

    def pool(self, attention: Float[Array, "b n p"], features: Float[Array, "b p d"]) -> Float[Array, "b d"]:
        """`F^T a`, heads concatenated (eq. 7)."""
        pooled = weighted_sum(attention, self._by_head(features))
        return pooled.reshape(pooled.shape[0], -1)

    def _by_head(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch n c"]:
        return x.reshape(*x.shape[:-1], self.num_heads, -1)


class ProjectedCrossAttention(CrossAttention):
    """PROJ -> CA: keys `F W_K` and values `F W_V` (supplementary, eq. 1), without ever projecting the p tokens.

    `(F W_K) q = F (W_K q)` and `(F W_V)^T a = W_V^T (F^T a)`, so it costs what plain cross attention costs. The key
    bias adds one constant to all logits of an image and cancels in the softmax; the value bias is added once,
    because attention sums to 1.
    """

    def __init__(self, dim: int, num_heads: int, *, use_bias: bool, rngs: nnx.Rngs):
        super().__init__(num_heads)
        self.key = linear(dim, dim, rngs, use_bias=use_bias, kernel_init=_xavier)
        self.value = linear(dim, dim, rngs, use_bias=use_bias, kernel_init=_xavier)

    def logits(self, query: Float[Array, "b d"], features: Float[Array, "b p d"]) -> Float[Array, "b n p"]:
        folded = jax.vmap(times_transposed, 1, 1)(self._by_head(query), self._by_head(self.key.kernel[...]))
        scale = features.shape[-1] ** -0.5
        return _einsum("bpi,bni->bnp", features, folded) * scale

    def pool(self, attention: Float[Array, "b n p"], features: Float[Array, "b p d"]) -> Float[Array, "b d"]:
        pooled = weighted_sum(attention, features)
        values = jax.vmap(product, 1, 1)(pooled, self._by_head(self.value.kernel[...]))
        values = values.reshape(values.shape[0], -1)
        return values if self.value.bias is None else values + self.value.bias[...][None]


class CrossAttentionStream(nnx.Module):
    """`q_{l+1} = W_l CA_l(q_l, F_l)` from stage `start_stage` to the last (eq. 10); `q_{L+1}` is the representation.

    Attributes:
        cls_token: `q_start`, `[num_queries, d_start]`, initialised N(1, 1). One query serves all images; with
            `num_queries` = number of classes there is one per class (supplementary, class-specific CLS) and every
            image is given its own by `query`.
        attentions, projections: cross attention and linear layer `d_l -> d_{l+1}` of each stage; the last one maps
            `d_L -> d_L`.

    Examples:
        >>> stream = castream.CrossAttentionStream((64, 128), num_heads=2, rngs=nnx.Rngs(0))
        >>> representation, attention = stream((jnp.ones((1, 8, 8, 64)), jnp.ones((1, 4, 4, 128))))
        >>> representation.shape, [a.shape for a in attention]
        ((1, 128), [(1, 2, 8, 8), (1, 2, 4, 4)])
    """

    def __init__(
        self,
        stage_dims: Sequence[int],
        start_stage: int = 0,
        block: Literal["ca", "proj_ca"] = "ca",
        num_queries: int = 1,
        num_heads: int = 1,
        use_bias: bool = True,
        init: Literal["paper", "gap"] = "paper",
        *,
        rngs: nnx.Rngs,
    ):
        """Args:
            stage_dims: channels of S0 … SL (`backbone.stage_dims`).
            start_stage: first stage the stream reads.
            block: `"ca"` (eq. 6) or `"proj_ca"` (supplementary, eq. 1).
            num_queries: 1, or the number of classes.
            num_heads: attention heads; must divide the channels of every stage read.
            use_bias: bias of the linear layers, keys and values.
            init: `"paper"`, as the official code draws its parameters, or `"gap"`: the same but for the query of the
                last block, which is 0, so that its attention is uniform, and its projections, which are the identity:
                the representation is that of global average pooling, to rounding, and training departs from there.
            rngs: source of the initial parameters.

        Raises:
            ValueError: for a start stage, block, number of heads or initialisation that does not fit.
        """
        if not isinstance(stage_dims, Sequence):
            raise ValueError(f"stage_dims are numbers, backbone.stage_dims, got {type(stage_dims).__name__}.")
        if not isinstance(start_stage, int) or not 0 <= start_stage < len(stage_dims):
            raise ValueError(f"start_stage must be one of 0 … {len(stage_dims) - 1}, got {start_stage!r}.")
        if block not in ("ca", "proj_ca"):
            raise ValueError(f"block must be 'ca' or 'proj_ca', got {block!r}.")
        dims = tuple(stage_dims[start_stage:])
        if num_heads < 1 or any(dim % num_heads for dim in dims):
            raise ValueError(f"num_heads={num_heads} must divide the channels of every stage read, {list(dims)}.")
        if init not in ("paper", "gap"):
            raise ValueError(f"init must be 'paper' or 'gap', got {init!r}.")
        if num_queries < 1:
            raise ValueError(f"num_queries must be 1 or the number of classes, got {num_queries}.")
        self.start_stage = start_stage
        self.block = block
        self.num_queries = num_queries
        self.num_heads = num_heads
        self.use_bias = use_bias
        self.cls_token = nnx.Param(1.0 + jax.random.normal(rngs.params(), (num_queries, dims[0])))
        self.attentions = nnx.List(
            [
                CrossAttention(num_heads)
                if block == "ca"
                else ProjectedCrossAttention(dim, num_heads, use_bias=use_bias, rngs=rngs)
                for dim in dims
            ]
        )
        self.projections = nnx.List(
            [
                linear(dim, next_dim, rngs, use_bias=use_bias, kernel_init=_xavier, bias_init=_torch_bias_init(dim))
                for dim, next_dim in zip(dims, (*dims[1:], dims[-1]), strict=True)
            ]
        )
        if init == "gap":
            self._start_as_average_pooling()

    def _start_as_average_pooling(self) -> None:
        if len(self.projections) == 1:
            self.cls_token[...] = jnp.zeros_like(self.cls_token[...])
        else:
            _set_linear(self.projections[-2], 0)
        _set_linear(self.projections[-1], 1)
        if isinstance(last := self.attentions[-1], ProjectedCrossAttention):
            _set_linear(last.value, 1)

    def __call__(self, stages: Stages, query: Int[Array, " b"] | None = None) -> tuple[Float[Array, "b d"], Attention]:
        """Args:
            stages: S0 … SL, each `[B, h_l, w_l, d_l]`.
            query: which CLS token each image starts from, `[B]`; needed when `num_queries` > 1.

        Returns:
            Representation `[B, d_L]` and the attention `[B, num_heads, h_l, w_l]` of each stage read.
        """
        representation, logits = self._walk(stages, query)
        return representation, tuple(
            jax.nn.softmax(logit.reshape(*logit.shape[:2], -1)).reshape(logit.shape) for logit in logits
        )

    def attention_logits(self, stages: Stages, query: Int[Array, " b"] | None = None) -> Attention:
        """What the softmax is taken of, `F_l q_l / sqrt(d_l)` (without the key bias, which cancels), per stage read."""
        return self._walk(stages, query)[1]

    def _walk(self, stages: Stages, query: Int[Array, " b"] | None) -> tuple[Float[Array, "b d"], Attention]:
        dims = [stage.shape[-1] for stage in stages[self.start_stage :]]
        expected = [projection.in_features for projection in self.projections]
        if dims != expected:
            raise ValueError(
                f"This stream reads stages of {expected} channels from S{self.start_stage} on; "
                f"the {len(stages)} given stages have {[stage.shape[-1] for stage in stages]}."
            )
        token = self._first_token(stages[-1], query)
        all_logits = []
        for features, attend, project in zip(
            stages[self.start_stage :], self.attentions, self.projections, strict=True
        ):
            batch, height, width, dim = features.shape
            tokens = features.reshape(batch, height * width, dim).astype(jnp.float32)
            logits = attend.logits(token, tokens)
            token = project(attend.pool(jax.nn.softmax(logits), tokens))
            all_logits.append(logits.reshape(batch, self.num_heads, height, width))
        return token, tuple(all_logits)

    def _first_token(self, stage: Float[Array, "b hl wl dl"], query: Int[Array, " b"] | None) -> Float[Array, "b d"]:
        if self.num_queries == 1:
            return jnp.broadcast_to(self.cls_token[...], (stage.shape[0], self.cls_token.shape[1]))
        if query is None:
            raise ValueError(
                f"A class-specific stream has {self.num_queries} queries: pass query, the class of each image [B] "
                "(the label in training, the GAP prediction at inference)."
            )
        return self.cls_token[...][query]


def _set_linear(layer: nnx.Linear, factor: int) -> None:
    """Makes a layer multiply what it is given by `factor`, 0 or 1, and add nothing."""
    layer.kernel[...] = factor * jnp.eye(layer.in_features, layer.out_features)
    if layer.bias is not None:
        layer.bias[...] = jnp.zeros_like(layer.bias[...])


def _torch_bias_init(fan_in: int) -> nnx.Initializer:
    """torch.nn.Linear's default, U(-1/sqrt(fan_in), 1/sqrt(fan_in)), which the official code keeps."""
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32, **_: jax.random.uniform(key, shape, dtype, -bound, bound)


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
