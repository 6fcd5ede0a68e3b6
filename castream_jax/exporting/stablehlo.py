"""A model as a StableHLO program, which runs without this package: `jax.export.deserialize(...).call(weights, pixels)`.

The weights lie beside the program, in `model.safetensors`, and are its first argument. Within it they would be
constants of the program: no other program could read them, it would be compiled anew for every training, and its
serialised form cannot hold more than 2 GiB.
"""

from typing import Any

from flax import nnx
import jax
import jax.export
import jax.numpy as jnp
from jaxtyping import Array, Float

from castream_jax.exporting.arrays import named_arrays, with_arrays
from castream_jax.model import Model

PROGRAM_FILE = "model.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")

# {"logits": {head: [B, K]}, "attention": {stream: {"S0": [B, n, h, w], …}}}
Outputs = dict[str, dict[str, Any]]


def export_program(model: Model, image_size: int) -> jax.export.Exported:
    """The program of a model, for batches of any size and every platform.

    It takes the arrays by name (see `named_arrays`) and pixels float32 `[B, image_size, image_size, 3]` in [0, 1], and
    returns logits of every head and attention of every stream. A class-specific stream starts from the class that GAP
    predicts.

    Raises:
        ValueError: if the backbone cannot take images of this size.
    """
    shapes = {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in named_arrays(model).items()}
    batch = jax.export.symbolic_shape(f"b, {image_size}, {image_size}, 3")
    abstract = nnx.eval_shape(lambda: model)

    def run(weights: dict[str, Array], pixels: Float[Array, "b h w 3"]) -> Outputs:
        return outputs(with_arrays(abstract, weights), pixels)

    return jax.export.export(jax.jit(run), platforms=PLATFORMS)(shapes, jax.ShapeDtypeStruct(batch, jnp.float32))


def outputs(model: Model, pixels: Float[Array, "b h w 3"]) -> Outputs:
    """What the program returns."""
    stages = model.backbone.stages(pixels)
    query = model.predicted_class(stages)
    results: Outputs = {"logits": {}, "attention": {}}
    for name, head in model.heads.items():
        representation, attention = head(stages, query)
        results["logits"][name] = model.backbone.classify(representation)
        first = len(stages) - len(attention)
        if attention:
            results["attention"][name] = {f"S{first + i}": scores for i, scores in enumerate(attention)}
    return results
