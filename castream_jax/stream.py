"""CA-Stream (paper, section 3.3): a CLS token that cross-attends to a network's stages and replaces average pooling.

Axes: b image, p = h w positions of a stage, d channels of that stage, n attention head, c = d / n channels of a head.
"""

from collections.abc import Callable, Sequence
import functools
import itertools
import math
from typing import Literal

from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from castream_jax.backbones.pooled_stages import own_pooling
from castream_jax.kernels.attention_pooling import weighted_sum
from castream_jax.kernels.precision import PRECISION
from castream_jax.kernels.product import product
from castream_jax.kernels.times_transposed import times_transposed
from castream_jax.layers import linear
from castream_jax.runtime.built_at_once import built_at_once

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
        dropout: float = 0.0,
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
            dropout: probability that an attention weight, or a value that a linear layer gives, is dropped in training,
                where `dropout_keys` are given.
            rngs: source of the initial parameters.

        Raises:
            ValueError: for a start stage, block, number of heads, initialisation or dropout that does not fit.
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
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be a probability, from 0 to below 1, got {dropout}.")
        self.start_stage = start_stage
        self.block = block
        self.num_queries = num_queries
        self.num_heads = num_heads
        self.use_bias = use_bias
        self.dropout = dropout
        drawn = built_at_once(
            _drawn,
            rngs,
            dims=dims,
            block=block,
            num_queries=num_queries,
            num_heads=num_heads,
            use_bias=use_bias,
            init=init,
        )
        self.cls_token, self.attentions, self.projections = drawn.cls_token, drawn.attentions, drawn.projections

    def __call__(
        self, stages: Stages, query: Int[Array, " b"] | None = None, dropout_keys: Key[Array, " b"] | None = None
    ) -> tuple[Float[Array, "b d"], Attention]:
        """Args:
            stages: S0 … SL, each `[B, h_l, w_l, d_l]`.
            query: which CLS token each image starts from, `[B]`; needed when `num_queries` > 1.
            dropout_keys: of each image, what its dropout is drawn from; None for inference.

        Returns:
            Representation `[B, d_L]` and the attention `[B, num_heads, h_l, w_l]` of each stage read.
        """
        representation, logits = self._walk(stages, query, dropout_keys)
        return representation, tuple(
            jax.nn.softmax(logit.reshape(*logit.shape[:2], -1)).reshape(logit.shape) for logit in logits
        )

    def attention_logits(self, stages: Stages, query: Int[Array, " b"] | None = None) -> Attention:
        """What the softmax is taken of, `F_l q_l / sqrt(d_l)` (without the key bias, which cancels), per stage read."""
        return self._walk(stages, query)[1]

    def _walk(
        self, stages: Stages, query: Int[Array, " b"] | None, dropout_keys: Key[Array, " b"] | None = None
    ) -> tuple[Float[Array, "b d"], Attention]:
        dims = [stage.shape[-1] for stage in stages[self.start_stage :]]
        expected = [projection.in_features for projection in self.projections]
        if dims != expected:
            raise ValueError(
                f"This stream reads stages of {expected} channels from S{self.start_stage} on; "
                f"the {len(stages)} given stages have {[stage.shape[-1] for stage in stages]}."
            )
        token, drop = self._first_token(stages[-1], query), self._dropout(dropout_keys)
        all_logits = []
        for features, attend, project in zip(
            stages[self.start_stage :], self.attentions, self.projections, strict=True
        ):
            batch, height, width, dim = features.shape
            tokens = features.reshape(batch, height * width, dim).astype(jnp.float32)
            logits = attend.logits(token, tokens)
            token = drop(project(attend.pool(drop(jax.nn.softmax(logits)), tokens)))
            all_logits.append(logits.reshape(batch, self.num_heads, height, width))
        return token, tuple(all_logits)

    def _dropout(self, keys: Key[Array, " b"] | None) -> Callable[[Array], Array]:
        """Sets each value to 0 with the stream's probability, else divides it by that of staying, as PyTorch's Dropout.

        What is given first, second, … is drawn apart. Without keys, it does nothing.
        """
        if keys is None or not self.dropout:
            return lambda values: values
        stay, number = 1 - self.dropout, itertools.count()

        def drop(values: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
            own = jax.vmap(functools.partial(jax.random.fold_in, data=next(number)))(keys)
            kept = jax.vmap(lambda key: jax.random.bernoulli(key, stay, values.shape[1:]))(own)
            return jnp.where(kept, values / stay, 0)

        return drop

    def _first_token(self, stage: Float[Array, "b hl wl dl"], query: Int[Array, " b"] | None) -> Float[Array, "b d"]:
        if self.num_queries == 1:
            return jnp.broadcast_to(self.cls_token[...], (stage.shape[0], self.cls_token.shape[1]))
        if query is None:
            raise ValueError(
                f"A class-specific stream has {self.num_queries} queries: pass query, the class of each image [B] "
                "(the label in training, the GAP prediction at inference)."
            )
        return self.cls_token[...][query]


def _drawn(
    *, dims: tuple[int, ...], block: str, num_queries: int, num_heads: int, use_bias: bool, init: str, rngs: nnx.Rngs
) -> nnx.Dict:
    """The modules of a `CrossAttentionStream`, by its attributes."""
    modules = nnx.Dict(
        cls_token=nnx.Param(1.0 + jax.random.normal(rngs.params(), (num_queries, dims[0]))),
        attentions=nnx.List(
            [
                CrossAttention(num_heads)
                if block == "ca"
                else ProjectedCrossAttention(dim, num_heads, use_bias=use_bias, rngs=rngs)
                for dim in dims
            ]
        ),
        projections=nnx.List(
            [
                linear(dim, next_dim, rngs, use_bias=use_bias, kernel_init=_xavier, bias_init=_torch_bias_init(dim))
                for dim, next_dim in zip(dims, (*dims[1:], dims[-1]), strict=True)
            ]
        ),
    )
    if init == "gap":
        _start_as_average_pooling(modules)
    return modules


def _start_as_average_pooling(modules: nnx.Dict) -> None:
    if len(modules.projections) == 1:
        modules.cls_token[...] = jnp.zeros_like(modules.cls_token[...])
    else:
        _set_linear(modules.projections[-2], 0)
    _set_linear(modules.projections[-1], 1)
    if isinstance(last := modules.attentions[-1], ProjectedCrossAttention):
        _set_linear(last.value, 1)


def _set_linear(layer: nnx.Linear, factor: int) -> None:
    """Makes a layer multiply what it is given by `factor`, 0 or 1, and add nothing."""
    layer.kernel[...] = factor * jnp.eye(layer.in_features, layer.out_features)
    if layer.bias is not None:
        layer.bias[...] = jnp.zeros_like(layer.bias[...])


def _torch_bias_init(fan_in: int) -> nnx.Initializer:
    """torch.nn.Linear's default, U(-1/sqrt(fan_in), 1/sqrt(fan_in)), which the official code keeps."""
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32, **_: jax.random.uniform(key, shape, dtype, -bound, bound)
