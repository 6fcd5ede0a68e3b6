"""What every attribution method is given: one batch of images, its trunk pass already done."""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from castream_jax.backbones.pooled_stages import with_last
from castream_jax.model import Model, class_values
from castream_jax.protocol import Protocol
from castream_jax.stream import Stages


class Inputs:
    """A batch to explain.

    Attributes:
        model: backbone with heads.
        pixels: `[B, H, W, 3]` in [0, 1].
        labels: ground-truth classes `[B]`.
        protocol: the choices.
        chunk: masked images per trunk pass, at most.
        stages: S0 … SL.
        logits: of each head on the images, `[B, K]`.
        query: class whose CLS token a class-specific stream starts from, `[B]`.
        features: the target features `[B, h, w, d]` that class activation maps weigh.
    """

    def __init__(
        self,
        model: Model,
        pixels: Float[Array, "b height width 3"],
        labels: Int[Array, " b"],
        protocol: Protocol,
        chunk: int,
    ):
        """Does the one trunk pass."""
        self.model, self.pixels, self.labels, self.protocol, self.chunk = model, pixels, labels, protocol, chunk
        backbone = model.backbone
        last = len(backbone.stage_dims) - 1
        stage = last if protocol.target_stage is None else protocol.target_stage
        # From the target features to S0 … SL, and from derivatives with respect to these back to the target's.
        self._with_target: Callable[[Array], Stages]
        self._pull_back: Callable[[Stages], tuple[Array]]
        if stage == last:
            # Where the network pools otherwise than by the mean, its logits need not depend on the last map at all.
            if protocol.target_features == "residual" or backbone.pools_itself:
                self.stages, self.features, complete = backbone.stages_and_target(pixels)
            else:
                self.stages = backbone.stages(pixels)
                self.features, complete = self.stages[-1], lambda target: target
            self._with_target = lambda target: with_last(self.stages, complete(target))
            _, self._pull_back = jax.vjp(self._with_target, self.features)
        else:
            zero = jnp.zeros_like(jax.eval_shape(backbone.stages, pixels)[stage])
            self.stages, self._pull_back = jax.vjp(lambda offset: backbone.stages(pixels, {stage: offset}), zero)
            self.features = self.stages[stage]
            self._with_target = lambda target: backbone.stages(pixels, {stage: target - self.features})
        self.query = model.predicted_class(self.stages)
        self.logits: dict[str, Float[Array, "b k"]] = model.logits(self.stages, self.query)

    def classes(self, head: str) -> Int[Array, " b"]:
        """The class that is explained under `head`, per image."""
        return self.labels if self.protocol.target_class == "label" else jnp.argmax(self.logits[head], axis=-1)

    def class_logits(
        self, masked: Float[Array, "n height width 3"], images: Int[Array, " n"]
    ) -> Float[Array, "n heads"]:
        """Logit of the explained class under each head on `masked` pixels, each made from one of `images`."""
        return class_values(self.model(masked), self._classes, images)

    def class_probabilities(
        self, masked: Float[Array, "n height width 3"], images: Int[Array, " n"]
    ) -> Float[Array, "n heads"]:
        """The same of its probability."""
        return class_values(self.model.predict(masked, self.protocol), self._classes, images)

    @property
    def _classes(self) -> dict[str, Int[Array, " b"]]:
        return {head: self.classes(head) for head in self.model.heads}

    def class_logit(self, head: str, target: Float[Array, "b h w d"]) -> Float[Array, " b"]:
        """Each image's logit of its class under `head`, as a function of the target features.

        From the last stage on, this is the head and the classifier; from an earlier one, the rest of the trunk too.
        """
        return self._class_logit(head, self._with_target(target))

    def all_logits(self, head: str, target: Float[Array, "b h w d"]) -> Float[Array, "b k"]:
        """The same of all classes."""
        return self._all_logits(head, self._with_target(target))

    def gradient(self, head: str) -> Float[Array, "b h w d"]:
        """Derivative of each image's class logit with respect to its own target features."""
        return self._gradients(head)

    @functools.cached_property
    def _gradients(self) -> Callable[[str], Float[Array, "b h w d"]]:
        def gradient(head: str) -> Array:
            of_stages = jax.grad(lambda stages: self._class_logit(head, stages).sum())(self.stages)
            return self._pull_back(of_stages)[0]

        return functools.cache(gradient)

    def _class_logit(self, head: str, stages: Stages) -> Float[Array, " b"]:
        return jnp.take_along_axis(self._all_logits(head, stages), self.classes(head)[:, None], axis=1)[:, 0]

    def _all_logits(self, head: str, stages: Stages) -> Float[Array, "b k"]:
        return self.model.backbone.classify(self.model.heads[head](stages, self.query)[0])
