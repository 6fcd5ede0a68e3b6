"""What is minimised: one loss per image, of one label, of several, or of the predictions of another head."""

import jax
from jaxtyping import Array, Float, Int
import optax


def cross_entropy(
    logits: Float[Array, "b k"], labels: Int[Array, " b"] | Float[Array, "b k"], label_smoothing: float = 0.0
) -> Float[Array, " b"]:
    """`-log softmax(logits)[label]`, or its mean over the classes of a mixed image, weighted by their shares `[B, K]`.

    With smoothing, the label has 1 - `label_smoothing` of the probability and all k classes share the rest evenly.
    """
    if labels.ndim == 1:
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    else:
        losses = optax.softmax_cross_entropy(logits, labels)
    if not label_smoothing:
        return losses
    return (1 - label_smoothing) * losses - label_smoothing * jax.nn.log_softmax(logits).mean(-1)


def binary_cross_entropy(logits: Float[Array, "b k"], targets: Float[Array, "b k"]) -> Float[Array, " b"]:
    """Mean over the classes of `-t log sigmoid(x) - (1 - t) log(1 - sigmoid(x))`, for several labels per image."""
    return optax.sigmoid_binary_cross_entropy(logits, targets).mean(-1)


def distillation(logits: Float[Array, "b k"], teacher_logits: Float[Array, "b k"]) -> Float[Array, " b"]:
    """`-sum_k p_k log softmax(logits)_k` with `p` the softmax of the teacher's logits, which is not differentiated.

    Least where both predict the same probabilities, and then the entropy of these.
    """
    return optax.softmax_cross_entropy(logits, jax.nn.softmax(jax.lax.stop_gradient(teacher_logits)))
